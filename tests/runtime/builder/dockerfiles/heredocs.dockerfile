FROM alpine
COPY <<-"script.sh" <<config.ini /etc/app/
	#!/bin/sh
	echo "hello $USER"
	script.sh
[main]
path = ${HOME:-/root}
config.ini
RUN <<FILE1 cat > file1 && <<FILE2 cat > file2
I am
first
FILE1
I am
# second, and this is no comment \
FILE2
RUN cat <<'EOF' | tr a-z A-Z
FROM nowhere
EOF
RUN python3 <<EOF
with open("/hello", "w") as f:
    print("Hello", file=f)
EOF
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.org/x /
ARG A=1 B="two words" C
RUN echo $((1<<2)) <<< word
