# escape=`
# differs: Env: buildah's variables know no escape character but the backslash
FROM base
ENV A=a\b `
    B=`$A C=c
COPY a.txt `
     b.txt /1/
