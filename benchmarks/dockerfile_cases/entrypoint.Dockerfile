FROM base AS parent
CMD ["from", "parent"]
ENTRYPOINT ["entry"]
FROM parent
ENTRYPOINT ["other"]
HEALTHCHECK --start-period=2s CMD ["probe", "$x"]
