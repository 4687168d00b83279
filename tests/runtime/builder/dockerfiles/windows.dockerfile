# escape=`
FROM mcr.example/windows/servercore
SHELL ["powershell", "-Command"]
RUN New-Item -ItemType Directory C:\Example `
 ; Write-Host 'done'
COPY testfile.txt c:\
ENV A="C:\Program Files" B=x`"y
WORKDIR c:\app
CMD [ "cmd.exe", "/S" ]
