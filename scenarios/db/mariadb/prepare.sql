CREATE DATABASE sbtest;
FLUSH PRIVILEGES;
CREATE USER 'sbtest'@'%' IDENTIFIED BY 'sbtest';
GRANT ALL ON sbtest.* TO 'sbtest'@'%';
