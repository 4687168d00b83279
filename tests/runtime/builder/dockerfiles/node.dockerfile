FROM node:20 AS deps
WORKDIR /usr/src/app
COPY package*.json yarn.lock* ./
RUN if [ -f yarn.lock ]; then yarn --frozen-lockfile; \
  elif [ -f package-lock.json ]; then npm ci; \
  else echo "no lock file" && exit 1; \
  fi

FROM node:20-alpine
RUN apk add --no-cache tini=~0.19 \

    # the empty line above is tolerated
    && rm -rf /var/cache/apk/*
ENV NODE_ENV production
ENV PATH /usr/src/app/node_modules/.bin:$PATH
COPY --from=deps /usr/src/app/node_modules ./node_modules
VOLUME ["/data", "/logs"]
VOLUME /tmp/a /tmp/b
EXPOSE 3000 9229
ENTRYPOINT ["/sbin/tini", "--"]
CMD node server.js
