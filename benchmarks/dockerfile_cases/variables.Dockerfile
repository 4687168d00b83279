# differs: ExposedPorts: BuildKit has protocols in small letters, and each port of a range on its own
# differs: Labels: arguments of a stage are inherited by those that stand on it (Docker, "Build variables", scoping)
ARG GLOBAL=global
ARG BASE=base
FROM ${BASE} AS first
ARG GLOBAL
ARG OWN=own
ARG GIVEN=default
ARG EMPTY
ENV A=1 B="two words" C='single $A' D=$A$B E=${A}x F=\$A
ENV G one two  three
ENV H="a\"b" I=a\ b J='x'"y"z K=
ENV A=2 L=$A
LABEL g=$GLOBAL own=$OWN given=$GIVEN empty="$EMPTY" a=$A
ENV M=${NOPE:-fallback} N=${A:+set} O=${NOPE:+unset} Q=${K:-empty}
ARG A=argument
LABEL after=$A
ARG GIVEN=again
LABEL given.again=$GIVEN
ENV OWN=env
ARG OWN=argument
LABEL own.env=$OWN
RUN echo "$GLOBAL|$OWN|$GIVEN|$A|$B|$C|$F|$G" > /seen
LABEL "quoted key"="quoted value" multi="a\
b" two=2
LABEL nested=${NOPE:-${A}} single='$A'
LABEL old style value
EXPOSE $A 80/tcp
EXPOSE 53/udp 8000-8002 443/TCP
VOLUME $B /v2
VOLUME ["/v3", "/v 4"]
STOPSIGNAL SIGUSR1
FROM first
LABEL second=$GLOBAL$OWN$A
ARG GLOBAL
LABEL third=$GLOBAL
COPY --from=first /seen /$A/
