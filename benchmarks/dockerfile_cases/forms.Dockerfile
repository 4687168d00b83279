FROM base AS parent
ENTRYPOINT ["entry", "point"]
CMD ["arguments"]
HEALTHCHECK --timeout=1s CMD ["probe"]
LABEL a=1 b=2
FROM parent
ENTRYPOINT []
CMD ['single', 'quotes']
RUN ["sh", "-c", "echo \"$0 $HOME\" > /1", "zero"]
RUN [ "sh" , "-c" , "echo spaced > /2" ]
RUN [ -e /1 ] && echo test > /3
run echo lower \
# between
  case > /4
Env   KEY   value  with   blanks
LABEL b= "c d"=e\ f   'g'='h i'
EXPOSE 80 80/tcp 80/udp
STOPSIGNAL ${KEY:+SIGQUIT}
USER 0:0
WORKDIR /${KEY:+set}/x
ADD ["a.txt", "./b.txt", "./"]
HEALTHCHECK --interval=1m30s --start-period=500ms CMD exit 0 || exit 1
