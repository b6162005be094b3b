//! Which parts of a command line are hidden, and which stay visible.

use proptest::prelude::*;

use super::*;

/// Command lines of real tools. `hunter2` and every word with `S3cr3t` in it are secrets. A space
/// separates the arguments; `|` is a space in an argument. A line with `#` is a title.
const SECRETS: &str = r##"
# JSON and bodies
curl -d {"password"|:|"hunter2"} https://db/
curl -d {"password":["hunter2","x"]} https://db/
curl -d {"password":"a\"hunter2"} https://db/
curl -d {"name":"DB_PASSWORD","value":"hunter2"} https://db/
app {"auths":{"reg.example":{"auth":"hunter2"}}}
curl -d {\"password\":\"hunter2\"} https://db/
curl -d {"user":{"credentials":{"a":"hunter2"}}} https://db/
curl --data-urlencode password=hunter2 https://db/
curl -d user=ops&pass=hunter2 https://db/
curl -d %7B%22password%22%3A%22hunter2%22%7D https://db/
curl -d <user><password>hunter2</password></user> https://db/
curl -F token=hunter2 https://db/
curl -d config[password]=hunter2 https://db/
curl -d {'apiKey':|'hunter2'} https://db/
http POST https://db/ password:=hunter2
jq -n --arg password hunter2 .
jq -n --arg|token|hunter2 .
aws secretsmanager create-secret --name x --secret-string hunter2
aws ssm put-parameter --name /app/db --value hunter2 --type SecureString
aws ecs register-task-definition --container-definitions [{"environment":[{"name":"API_TOKEN","value":"hunter2"}]}]
# Headers
curl -H Authorization: Basic hunter2 https://db/
curl -H Authorization: Bearer hunter2
curl -H Authorization:|Basic hunter2
curl -H authorization:|token|hunter2 https://db/
curl -H Authorization:Basic hunter2
curl -H Proxy-Authorization:|Basic|hunter2 https://db/
curl -H X-Auth-Token:|hunter2 https://db/
curl -H PRIVATE-TOKEN:|hunter2 https://gitlab/
curl -H X-Vault-Token: hunter2 https://vault/
curl -H Cookie:|sid=hunter2 https://db/
curl -H apikey:hunter2 https://db/
wget --header=X-Api-Key:|hunter2 https://db/
wget --header|Authorization:|Bearer|hunter2 https://db/
grpcurl -H authorization:|Bearer|hunter2 db:443 list
git -c http.extraheader=AUTHORIZATION:|basic|hunter2 fetch
git -c http.https://host/.extraheader=Authorization:|Basic|hunter2 fetch
http https://db/ Authorization:Token|hunter2
websocat -H=Authorization:|Bearer|hunter2 wss://db/
xh https://db/ X-Api-Key:hunter2
sh -c curl|-H|"Authorization:|Bearer|hunter2"|https://db/
sh -c curl|-H|Authorization:\|Bearer\|hunter2|https://db/
bash -lc export|API_TOKEN=hunter2;|systemctl|stop|app
# Names
tailscale up --authkey hunter2
tailscale up --auth-key=hunter2
ngrok authtoken hunter2
ngrok config add-authtoken hunter2
app --basic-auth ops:hunter2
app --auth ops:hunter2
app --auth=ops:hunter2
env GITHUB_PAT=hunter2 app
env REDISCLI_AUTH=hunter2 redis-cli ping
env AZURE_DEVOPS_EXT_PAT=hunter2 az repos list
env DOCKER_AUTH_CONFIG={"auths":{"r":{"auth":"hunter2"}}} app
env RESTIC_PASSWORD=hunter2 restic backup /srv
env BORG_PASSPHRASE=hunter2 borg create
env VAULT_TOKEN=hunter2 vault kv get x
env TF_VAR_db_password=hunter2 terraform apply
env SMTP_PASS=hunter2 app
env DJANGO_SECRET_KEY=hunter2 gunicorn app
env LDAP_BIND_PW=hunter2 app
npm publish --_auth=hunter2
npm config set _auth hunter2
nmcli c mod home wifi-sec.psk hunter2
nmcli dev wifi connect home password hunter2
wpa_passphrase home hunter2
wpa_cli set_network 0 psk "hunter2"
mysqladmin -u root password hunter2
mysql -u root -e ALTER|USER|x|IDENTIFIED|BY|'hunter2'
psql -c ALTER|USER|x|PASSWORD|'hunter2'
psql -c CREATE|ROLE|x|LOGIN|PASSWORD|'hunter2' postgresql://ops@db/x
terraform apply -var db_password=hunter2
ansible-playbook -e ansible_become_pass=hunter2 site.yml
ansible-playbook --extra-vars {"db_password":"hunter2"} site.yml
helm upgrade x chart --set auth.password=hunter2
helm upgrade x chart --set postgresqlPassword=hunter2,replicas=2
helm install x chart --set-string image.tag=1,api.token=hunter2
docker run -e MYSQL_ROOT_PASSWORD=hunter2 mysql
docker build --build-arg NPM_TOKEN=hunter2 .
podman run --env=DB_PASS=hunter2 img
kubectl config set-credentials ops --token=hunter2
kubectl create secret docker-registry r --docker-password=hunter2
kubectl create secret generic x --from-literal password=hunter2
az login --service-principal -u app -p hunter2 --tenant t
az storage blob list --account-key hunter2
az keyvault secret set --vault-name v --name n --value hunter2
az vm create --admin-password hunter2
az sql server create -p hunter2
gcloud sql users set-password ops --password=hunter2
gcloud sql users create ops --password hunter2
aws configure set aws_session_token hunter2
s3cmd --secret_key=hunter2 ls
rclone lsd :s3: --s3-secret-access-key hunter2
rclone obscure hunter2
mc alias set minio https://minio ops hunter2
pulumi config set --secret dbPassword hunter2
pulumi config set --secret x hunter2
vault kv put secret/app db=hunter2
vault kv put secret/app password=hunter2
vault write auth/userpass/login/ops password=hunter2
vault operator generate-root -otp hunter2
vault unwrap -address=https://v hvs.CAESIS3cr3t0123456789abcdef
consul kv put app/db/password hunter2
consul acl set-agent-token default hunter2
consul members -token=hunter2
etcdctl --user root:hunter2 get x
etcdctl --user=root:hunter2 get x
etcdctl --user root --password hunter2 get x
etcdctl user add root:hunter2
etcdctl put /app/password hunter2
bw unlock hunter2
bw login ops@example.com hunter2
gh auth login --with-token hunter2
glab auth login --token hunter2
doctl auth init -t hunter2
doctl auth init --access-token hunter2
flyctl secrets set API=hunter2
heroku config:set SECRET_KEY=hunter2
cf login -u ops -p hunter2
cf auth ops hunter2
oc login -u ops -p hunter2
oc login --token=hunter2
argocd login argo --username admin --password hunter2
kubeadm join 10.0.0.1:6443 --token hunter2.0123456789abcdef
k3s agent --token hunter2
cloudflared tunnel run --token hunter2
stripe listen --api-key hunter2
sentry-cli --auth-token hunter2 releases list
sonar-scanner -Dsonar.token=hunter2
mvn -Pgpg -Dgpg.passphrase=hunter2 deploy
gradle -PsigningPassword=hunter2 publish
mvn deploy -Pgpg.passphrase=hunter2
keytool -list -keystore k.jks -storepass hunter2
keytool -importkeystore -srcstorepass hunter2 -deststorepass hunter2
jarsigner -storepass hunter2 a.jar alias
java -Djavax.net.ssl.trustStorePassword=hunter2 -jar a.jar
java -jar app.jar --spring.datasource.password=hunter2
kcat -X sasl.password=hunter2 -b k:9092
kafka-console-producer.sh --producer-property sasl.jaas.config=org.X|required|username="a"|password="hunter2";
gs -sPDFPassword=hunter2 -o o.pdf i.pdf
qpdf --password=hunter2 --decrypt i.pdf o.pdf
pdftk i.pdf output o.pdf user_pw hunter2 owner_pw hunter2
ykman piv access change-pin --pin hunter2 --new-pin hunter2
x11vnc -passwd hunter2
openconnect --token-secret hunter2 vpn
oathtool --totp hunter2
snmpwalk -v2c -c hunter2 h
snmpwalk -v3 -u ops -a SHA -A hunter2 -x AES -X hunter2 h
sbt -Dcredentials=hunter2
java -Djwt=hunter2 -jar app.jar
java -Dpsk=hunter2 -jar app.jar
mvn -Dpin=hunter2 deploy
monerod --rpc-login ops:hunter2
monerod --rpc-login=ops:hunter2
concourse web --add-local-user ops:hunter2
app --admin_user=ops:hunter2
# Short options
ssh-keygen -t ed25519 -N hunter2 -f k
ssh-keygen -p -P hunter2 -N hunter2 -f k
ssh-keygen -Nhunter2 -f k
twine upload -u ops -p hunter2 dist/x.whl
rabbitmqadmin -u ops -p hunter2 list queues
rabbitmqctl add_user bob hunter2
rabbitmqctl change_password bob hunter2
rabbitmqctl authenticate_user bob hunter2
nerdctl login -u ops -p hunter2 host
docker login -p=hunter2 -u ops
ldapsearch -xw hunter2 -b dc=x
ldapsearch -xwhunter2 -b dc=x
ldapsearch -x -D cn=admin -whunter2
ldapmodify -x -D cn=admin -w hunter2 -f x.ldif
ldappasswd -x -D cn=admin -w hunter2 -s hunter2 uid=x
ldapadd -D cn=admin -w hunter2
htpasswd -b f ops hunter2
htpasswd -nb ops hunter2
htpasswd -bc /etc/nginx/h ops hunter2
mosquitto_passwd -b f ops hunter2
sudo htpasswd -b /etc/nginx/h ops hunter2
sudo /usr/bin/htpasswd -b /etc/nginx/h ops hunter2
sshpass -p hunter2 rsync -a x h:y
sudo sshpass -p hunter2 ssh h
curl -u ops:hunter2 -X POST https://db/
curl -uops:hunter2 https://db/
curl -u hunter2: https://api.stripe.com/
curl -sSfLu ops:hunter2 https://db/
curl --user=ops:hunter2 https://db/
curl -U ops:hunter2 -x proxy:3128 https://db/
curl -E c.pem:hunter2 https://db/
curl --cert c.pem:hunter2 https://db/
curl -b sid=hunter2 https://db/
mysql -uroot -phunter2
mysql -p hunter2
mysqldump -h db -u ops -phunter2 app
sudo -u ops mysql -phunter2
sudo mysqladmin kill 12 -phunter2
redis-cli -a hunter2 ping
redis-cli --pass hunter2 ping
redis-cli -u redis://:hunter2@db:6379
redis-cli ACL SETUSER bob on >hunter2
mongosh -u ops -p hunter2 db
mongodump --uri mongodb://ops:hunter2@db/x
openssl enc -aes256 -k hunter2 -in f
openssl enc -aes256 -K hunter2 -iv 0
openssl pkcs12 -passin pass:hunter2 -passout pass:hunter2
openssl rsa -passin=pass:hunter2
openssl passwd -6 hunter2
openssl dgst -hmac hunter2 f
zip -e -Phunter2 o.zip f
unzip -P hunter2 o.zip
rar a -hphunter2 o.rar f
7z x -phunter2 o.7z
cqlsh -u ops -p hunter2 h
ipmitool -I lanplus -H h -U ops -P hunter2 power off
ipmitool user set password 2 hunter2
smbclient //h/s hunter2 -U bob
smbclient //h/s -U bob%hunter2
mount.cifs //h/s /m -o user=x,pass=hunter2
net rpc shutdown -U ops%hunter2
xfreerdp /u:ops /p:hunter2 /v:h
rdesktop -u ops -p hunter2 h
sqlplus scott/hunter2
sqlcmd -U sa -P hunter2
isql dsn ops hunter2
lftp -u ops,hunter2 h
ncftpput -u ops -p hunter2 h /x f
chpasswd -e ops:hunter2
usermod -p hunter2 ops
useradd -m -p hunter2 bob
svn co --username ops --password hunter2 https://h/r
hg clone --config auth.x.password=hunter2 https://h/r
expect -c set|password|hunter2
sh -c echo|hunter2|\|sudo|-S|reboot
sh -c mysql|-phunter2;|kill|1
sh -c kill|1;mysql|-phunter2
radtest ops hunter2 h 0 hunter2
skopeo copy --src-creds ops:hunter2 a b
crane auth login -u ops -p hunter2 host
composer config http-basic.example.com ops hunter2
samba-tool user create bob hunter2
kadmin -p admin -w hunter2
# URLs
git clone https://ops:hunter2@host/r
git clone https://hunter2@host/r
git clone https://oauth2:glpat-hunter2@gitlab/r
git remote set-url origin https://x-access-token:hunter2@host/r
git push https://S3cr3ttokenS3cr3t@host/r
psql postgres://ops:hunter2@db:5432/app?sslmode=require
pg_dump --dbname=postgresql://ops:hunter2@db/app
psql postgres://db/app?user=ops&password=hunter2
app --database-url postgres://ops:hunter2@db/app
env DATABASE_URL=mysql://ops:hunter2@db/app app
env SENTRY_DSN=https://0123456789abcdefhunter2@o1.ingest.example/2 app
pip install --index-url https://ops:hunter2@pypi.example/simple x
npm install git+https://hunter2@host/r
curl https://h/api?api_key=hunter2
curl https://h/api?access_token=hunter2
curl https://h/api?x=1&X-Amz-Signature=hunter2
az storage blob show --blob-url https://a.blob.example/c/b?sv=1&sig=hunter2
curl https://hooks.slack.com/services/T000/B000/hunter2XXXXXXXXXXXX
curl https://discord.com/api/webhooks/123/hunter2
curl https://api.telegram.org/bot123456:hunter2/sendMessage
curl https://outlook.office.com/webhook/hunter2
ffmpeg -i rtmp://ops:hunter2@h/live
wget ftp://ops:hunter2@h/f
socat - PROXY:h:x:22,proxyauth=ops:hunter2
rsync rsync://ops:hunter2@h/m .
celery -A app -b amqp://ops:hunter2@mq// worker
celery --broker=amqp://ops:hunter2@mq// worker
curl --key https://h/?token=hunter2
app -a=hunter2
app --p hunter2
app --passcode hunter2
app --sas hunter2
app --webhook-url https://example.com/hunter2
env SLACK_WEBHOOK_URL=https://example.com/hunter2 app
vault kv put kv/x foo=hunter2
pm2 restart app -- -p hunter2
curl -H DD-API-KEY:|hunter2 https://h/
curl -d {"k":"DB_PASSWORD","v":"hunter2"} https://h/
curl -d {"Authorization":|["Bearer|hunter2"]} https://h/
curl https://h/login?u=ops&p=hunter2
app --connection-string Endpoint=sb://h/;SharedAccessKey=hunter2
terraform init -backend-config="access_key=hunter2"
salt db1 cmd.run mysql|-phunter2
docker exec c mysql -phunter2
kubectl exec p -- mysql -phunter2
systemd-run -p Environment=TOKEN=hunter2 app
racadm -u root -p hunter2 serveraction powerdown
veracrypt -t -p hunter2 /dev/x
qrencode otpauth://totp/x?secret=hunter2
sh -c echo|root:hunter2|\||chpasswd
sh -c chpasswd|<<<|'root:hunter2'
oathtool --totp -b hunter2
# Tokens and random words
app 123456:AAHdqTcvCH1vGWJxfSS3cr3tK5PALDsaw
app 123456789:AAS3cr3tPw9xabcdefghijklmnopqrstuvw
app --bot=123456789:AAS3cr3tPw9xabcdefghijklmnopqrstuvw
app xoxb-0123456789-S3cr3tPw9xAAAA
app hf_S3cr3tPw9xAbCdEfGhIjKlMnOp
app glpat-S3cr3tPw9xAbCdEfGh12
app --id AKIAS3cr3t0123456789
app sk-S3cr3tPw9xAbCdEfGhIjKl
app sk-proj-S3cr3tPw9xAbCdEfGhIjKl
app MTk4NjIyNDgzNDcS3cr3tMjQ4.Cl2FMQ.ZnCjm1XVW7vRze4bS3cr3t9kKWs
app deploy S3cr3tPw9xQ7mZ2kL8vB4n
app x=S3cr3tPw9xQ7mZ2kL8/vB4n+1
app 0a1b2c3d4e5f60718293a4b5c6d7e8f9S3cr3t
curl --aws-sigv4 aws:amz --user key:hunter2 https://h/
psql user=x|password='hunter2'|dbname=y
sh -c MYSQL_PWD=hunter2|mysql|-h|db
docker swarm join --token SWMTKN-1-hunter2 h:2377
docker run --env API_KEY=hunter2 img
influx -username ops -password hunter2
nodetool -u ops -pw hunter2 status
rman target sys/hunter2@db
expdp system/hunter2 directory=x
beeline -u jdbc:hive2://h -n ops -p hunter2
hive --hiveconf javax.jdo.option.ConnectionPassword=hunter2
spark-submit --conf spark.x.password=hunter2
winexe -U dom/ops%hunter2 //h cmd
psexec.py dom/ops:hunter2@h
curlftpfs -o user=ops:hunter2 ftp://h /m
aria2c --rpc-secret=hunter2 --http-passwd=hunter2
transmission-remote h -n ops:hunter2 -l
mitmproxy --proxyauth ops:hunter2
ab -A ops:hunter2 https://h/
swaks --to x -au ops -ap hunter2
sendemail -xu ops -xp hunter2
mailx -S smtp-auth-password=hunter2 x
restic --password-command echo|hunter2
sh -c echo|-n|hunter2|\||cryptsetup|open|/dev/x|y
iwctl --passphrase hunter2 station wlan0 connect x
pppd user ops password hunter2
virsh secret-set-value x --base64 hunter2
virt-install --graphics vnc,password=hunter2
qemu-system-x86_64 -object secret,id=s0,data=hunter2
consul agent -encrypt hunter2
vault server -dev -dev-root-token-id=hunter2
kubectl patch secret x -p {"data":{"k":"hunter2"}}
aws cognito-idp initiate-auth --auth-parameters USERNAME=u,PASSWORD=hunter2
aws lambda update-function-configuration --environment Variables={DB_PASS=hunter2}
aws rds modify-db-instance --master-user-password hunter2
ibmcloud login --apikey hunter2
yarn config set npmAuthToken hunter2
poetry config pypi-token.pypi hunter2
poetry publish -u ops -p hunter2
cargo login hunter2
nuget push x -ApiKey hunter2
dotnet nuget push x -k hunter2
dotnet user-secrets set K hunter2
composer config github-oauth.github.com hunter2
wp config create --dbuser=ops --dbpass=hunter2
gitlab-rails runner u.password='hunter2'
jenkins-cli -auth ops:hunter2 restart
travis encrypt hunter2
codecov -t hunter2
mysqlsh ops:hunter2@db:3306
arangosh --server.password hunter2
neo4j-admin set-initial-password hunter2
solr auth enable -credentials ops:hunter2
zkCli.sh addauth digest ops:hunter2
kafka-configs.sh --alter --add-config SCRAM-SHA-256=[password=hunter2]
emqx_ctl users add ops hunter2
ejabberdctl register bob host hunter2
ipa-client-install -p admin -w hunter2
kadmin.local -q addprinc|-pw|hunter2|ops
slappasswd -s hunter2
softhsm2-util --init-token --so-pin hunter2
tpm2_nvread -P hunter2 0x1
bitcoin-cli -rpcpassword=hunter2 stop
bitcoin-cli walletpassphrase hunter2 60
steamcmd +login ops hunter2 +quit
srcds_run +rcon_password hunter2
mcrcon -P hunter2 stop
expect -c spawn|ssh|h;|expect|"password:";|send|"hunter2\r"
python3 -c password='hunter2'
node -e process.env.TOKEN='hunter2'
bash -c sshpass|-p|'hunter2'|ssh|h
ssh h PGPASSWORD=hunter2|psql|-h|db
ssh h mysql|-phunter2
su - ops -c mysql|-phunter2
tmux new-session -d app|--token|hunter2
pkill -f app|--password=hunter2
pkill -f mysql|-phunter2
kubectl delete pod x --token hunter2
kubectl --token=hunter2 delete pod x
supervisorctl -u ops -p hunter2 stop app
docker -H tcp://h stop x --password hunter2
systemctl set-environment DB_PASSWORD=hunter2
systemctl set-environment X=S3cr3tPw9xQ7mZ2kL8vB4n
systemd-run --setenv=TOKEN=hunter2 app -p hunter2
nohup app -p hunter2
timeout 30 app -p hunter2
tini -- app -p hunter2
busybox httpd -p hunter2
env -i app --password hunter2
xargs -I{} mysql -phunter2
openssl s_client -psk hunter2
openssl enc -pass pass:hunter2
git -c user.password=hunter2 push
git -c http.proxy=http://ops:hunter2@p:3128 fetch
git -c credential.helper=!f(){|echo|password=hunter2;|};f fetch
http --auth-type=bearer --auth hunter2 https://h
http --session=ops https://h Cookie:sid=hunter2
curl --proxy-header Proxy-Authorization:|Basic|hunter2 https://h
curl --oauth2-bearer hunter2 https://h
curl -x http://ops:hunter2@p:3128 https://h
curl --url https://h/?apikey=hunter2
curl --json {"client_secret":"hunter2"} https://h
curl -H X-Amz-Security-Token:|hunter2 https://h
mqtt pub -u ops -pw:env hunter2
doveadm auth test ops hunter2
saslpasswd2 -p -c hunter2
pdbedit --password hunter2
firebird-isql -user SYSDBA -password hunter2
isql-fb -u SYSDBA -p hunter2
"##;

/// Command lines that stop something or are common around a stop. They are shown completely.
const HARMLESS: &str = r##"
kill -TERM 4100
kill -9 4100
kill -s TERM 4100
kill -HUP 1
kill -15 -- -4100
/bin/kill -TERM 4100
busybox kill -TERM 4100
sudo kill -TERM 4100
sudo -u deploy kill -9 4100
sudo -n systemctl restart app.service
pkill -TERM -f /srv/app/server
pkill -P 4100
pkill -u deploy -x app
pkill --signal TERM -f gunicorn:|master
killall -w app
killall -s TERM -u deploy app
fuser -k -TERM 8080/tcp
skill -TERM app
systemctl stop app.service
systemctl restart token-agent auth-server
systemctl --user stop session-manager
systemctl -M web stop app
systemctl kill --signal=TERM --kill-whom=main app
systemctl reboot
systemctl daemon-reload
systemctl -H ops@web1 stop app
service app stop
/usr/sbin/service auth-server restart
docker stop web
docker stop -t 10 4f5e6d7c8b9a0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796
docker kill -s TERM web
docker restart --time 5 auth
docker container stop web
docker compose -f /srv/compose.yml down -t 30
docker-compose stop auth
docker --context prod stop web
podman stop -a -t 10
nerdctl kill web
crictl stop 4f5e6d7c8b9a0
runc kill 4f5e6d7c8b9a0f1e2d3c4b5a69788796 TERM
containerd-shim-runc-v2 -namespace moby -id 4f5e6d7c8b9a0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796 -address /run/containerd/containerd.sock
kubectl delete pod web-7d4b9c6f5-x2x9k
kubectl -n prod delete pod auth-7d4b9c6f5-x2x9k --grace-period=30
kubectl rollout restart deployment/auth
kubectl drain node-1 --ignore-daemonsets
kubectl delete secret db
loginctl terminate-session 3
loginctl kill-user deploy
machinectl poweroff web
virsh shutdown web
tmux kill-session -t auth
pm2 restart auth
sv restart auth
/sbin/init
/sbin/init splash
/usr/lib/systemd/systemd --switched-root --system --deserialize=31
/lib/systemd/systemd --user
/usr/lib/systemd/systemd-logind
systemd-shutdown reboot --log-level 6
shutdown -r +5
shutdown -P now
reboot -f
sshd:|deploy|[priv]
sshd-session:|deploy@pts/0
sh -c kill|-TERM|4100
bash -c kill|-TERM|$(cat|/run/app.pid)
bash -c systemctl|stop|app;|sleep|5;|systemctl|start|app
sh -c docker|stop|auth|&&|docker|rm|auth
ssh web1 systemctl|stop|auth
timeout 30 kill -TERM 4100
nohup kill -TERM 4100
xargs -n 1 kill -TERM
env LANG=C kill -TERM 4100
# others, not in the table
bash
-bash
bash -l
sh /opt/deploy.sh restart
bash -x /srv/deploy/restart.sh web
/bin/sh /var/lib/dpkg/info/app.postinst configure 1.2-3
/bin/sh /etc/init.d/app stop
python3 /usr/bin/supervisord -c /etc/supervisord.conf
supervisorctl stop app
python3 -c import|os;os.kill(4100,15)
perl -e kill|15,4100
make stop
npm stop
cron -f
/usr/sbin/cron -f -P
logrotate /etc/logrotate.conf
apt-get -y upgrade
/usr/bin/dpkg --configure -a
needrestart -r a
unattended-upgrade
dockerd -H fd:// --containerd=/run/containerd/containerd.sock
kubelet --config=/var/lib/kubelet/config.yaml --node-ip=10.0.0.1
tini -- /srv/app --listen 8080
dumb-init /srv/app serve
/usr/bin/containerd
/usr/sbin/crond -n
monit -c /etc/monitrc
gunicorn:|master|[app:app]
nginx:|master|process|/usr/sbin/nginx|-g|daemon|on;
postgres:|ops|app|10.0.0.1(4242)|idle
php-fpm:|pool|www
curl -X POST http://localhost:8080/shutdown
ansible-playbook -i hosts restart.yml
puppet agent --test
chef-client -d
java -Xmx2g -cp /srv/a.jar -jar /srv/app.jar --server.port=8080
node /srv/app/server.js --port 8080
target/debug/gateway --listen 127.0.0.1:0 --drain-timeout 5s --records /tmp/x --diag-log /tmp/y
"##;

/// The command lines of a table, in the form of `/proc/PID/cmdline`.
fn command_lines(table: &str) -> impl Iterator<Item = String> {
    let lines = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.replace(' ', "\0").replace('|', " ") + "\0")
}

#[test]
fn in_real_command_lines_the_secrets_are_hidden_and_the_program_is_shown() {
    for line in command_lines(SECRETS) {
        let program = line.split('\0').next().unwrap_or_default();
        for secret in ["hunter2", "Tr0ub4dor&x", "aGVsbG8K/+9==", "4711", "a:b", "p%q,r", "x!"] {
            let shown = without_secrets(&line.replace("hunter2", secret));
            let is_clean = !shown.contains(secret) && !shown.contains("S3cr3t");
            assert!(is_clean && shown.contains(REDACTED), "{secret}: {shown:?}");
            assert!(shown.starts_with(program), "{shown:?}");
            assert_eq!(without_secrets(&shown), shown);
        }
    }
}

#[test]
fn a_secret_with_blanks_in_a_separate_argument_is_hidden_completely() {
    for line in [
        "nmcli dev wifi connect home password correct|horse",
        "htpasswd -b f ops correct|horse",
        "mysql -p correct|horse",
        "app --auth correct|horse",
        "git clone https://ops:correct|horse@host/r",
        "echo correct|horse",
    ] {
        let shown = without_secrets(&line.replace(' ', "\0").replace('|', " "));
        assert!(!shown.contains("correct") && !shown.contains("horse"), "{shown:?}");
    }
}

#[test]
fn command_lines_around_a_stop_are_shown_in_full() {
    for line in command_lines(HARMLESS) {
        assert_eq!(without_secrets(&line), line);
    }
}

#[test]
fn a_harmless_command_still_hides_values_with_the_name_or_shape_of_a_secret() {
    let cases = [
        ("kubectl delete pod x --token hunter2", "kubectl delete pod x --token ***"),
        ("pkill -f app|--password=hunter2", "pkill -f app|--password=***"),
        ("pkill -f mysql|-phunter2", "pkill -f mysql|-p***"),
        ("docker stop https://ops:hunter2@h", "docker stop https://ops:***@h"),
        ("sh -c kill|1;mysql|-phunter2", "sh -c kill|1;mysql|-p***"),
        ("sudo mysqladmin kill 12 -phunter2", "sudo mysqladmin kill 12 -p***"),
        ("docker run stop -p hunter2", "docker run stop -p ***"),
    ];
    for (given, expected) in cases {
        let nul = |text: &str| text.replace(' ', "\0").replace('|', " ");
        assert_eq!(without_secrets(&nul(given)), nul(expected));
    }
}

#[test]
fn the_options_of_real_tools_lose_their_secrets() {
    // A space separates the arguments here; `|` is a space in an argument.
    let cases = [
        ("mysql -u root -phunter2 db", "mysql -u root -p*** db"),
        ("mysqldump --password=hunter2 --host=db", "mysqldump --password=*** --host=db"),
        ("mysql -p db", "mysql -p ***"),
        ("/usr/bin/sshpass -p hunter2 ssh ops@db", "/usr/bin/sshpass -p *** ssh ops@db"),
        ("redis-cli -h db -a hunter2 PING", "redis-cli -h db -a *** PING"),
        ("curl -u ops:hunter2 https://db/", "curl -u ops:*** https://db/"),
        ("curl --user ops https://db/", "curl --user ops https://db/"),
        ("curl -u TOKEN=hunter2 https://db/", "curl -u TOKEN=*** https://db/"),
        (
            "git clone https://secrets:hunter2/x@a-token:hunter2@host/r",
            "git clone https://secrets:***@host/r",
        ),
        ("curl https://db/?token=&page=2", "curl https://db/?token=***"),
        ("env TOKEN= app", "env TOKEN= app"),
        ("curl https://ops:hunter2@db/x?y=1", "curl https://ops:***@db/x?y=1"),
        ("curl -H Authorization:|Bearer|abc.def db", "curl -H Authorization:|*** db"),
        ("curl -H X-Api-Key:hunter2 db", "curl -H X-Api-Key:*** db"),
        ("curl https://db/?token=abc&page=2", "curl https://db/?token=***"),
        ("curl -d {\"password\":\"hunter2\",\"a\":1}", "curl -d {\"password\":\"***"),
        ("psql postgresql://ops:hunter2@db/app", "psql postgresql://ops:***@db/app"),
        ("psql host=db|password=hunter2|dbname=app", "psql host=db|password=***"),
        ("env PGPASSWORD=hunter2 psql -h db", "env PGPASSWORD=*** psql -h db"),
        ("env AWS_SECRET_ACCESS_KEY=a/b+c aws s3 ls", "env AWS_SECRET_ACCESS_KEY=*** aws s3 ls"),
        (
            "git clone https://x-access-token:ghp_x@host/r",
            "git clone https://x-access-token:***@host/r",
        ),
        ("git clone https://ghp_0123456789abcdefghij@host/r", "git clone https://***@host/r"),
        ("docker login -u ops -p hunter2 host", "docker login -u *** -p *** ***"),
        ("kubectl --token hunter2 get pods", "kubectl --token *** get pods"),
        ("vault login -token=hunter2", "vault login -token=***"),
        ("ldapsearch -x -w hunter2 -b dc=x", "ldapsearch -x -w *** -b ***"),
        ("zip -P hunter2 out.zip in", "zip -P *** out.zip in"),
        ("7z a -phunter2 out.7z in", "7z a -p*** out.7z in"),
        ("smbclient -U ops%hunter2 //h/s", "smbclient -U ops%*** //h/s"),
        ("openssl enc -passin pass:hunter2", "openssl enc -passin pass:***"),
        ("gpg --batch --passphrase hunter2 -d f", "gpg --batch --passphrase *** -d f"),
        ("wget --http-password=hunter2 http://h", "wget --http-password=*** http://h"),
        ("java -Ddb.password=hunter2 -jar a.jar", "java -Ddb.password=*** -jar a.jar"),
        ("app --api-key hunter2 --port 80", "app --api-key *** --port 80"),
        ("app --api-key=a/b/c TOKEN=a/b", "app --api-key=*** TOKEN=***"),
        ("app --apiKey=hunter2 --client-secret=x", "app --apiKey=*** --client-secret=***"),
        ("sh -c mysql|-phunter2|--host|db", "sh -c mysql|-p***|--host|db"),
        // Not secrets, but some are hidden anyway.
        (
            "app --password-file /run/p --tls-key=/etc/k.pem",
            "app --password-file /run/p --tls-key=/etc/k.pem",
        ),
        ("psql --no-password -h db", "psql --no-password -h db"),
        ("docker login --password-stdin host", "docker login --password-stdin ***"),
        ("app --password --host db", "app --password --host db"),
        ("grep -p x", "grep -p ***"),
        ("kill -TERM 4100", "kill -TERM 4100"),
        ("sort --key=2 f", "sort --key=2 f"),
        ("env PWD=/home/ops sh", "env PWD=/home/ops sh"),
        ("rsync ops@db:/var/x .", "rsync ops@db:/var/x ."),
        ("nginx: master process", "nginx: master process"),
        // Values with spaces, and with characters that end other values.
        ("app --password correct|horse|battery --port 80", "app --password *** --port 80"),
        ("app --password=correct|horse --port 80", "app --password=*** --port 80"),
        ("app --password=a&b;c,d@e --port 80", "app --password=*** --port 80"),
        ("env PGPASSWORD=a|b psql", "env PGPASSWORD=*** psql"),
        ("psql host=db|password='my|secret'|dbname=app", "psql host=db|password='***"),
        ("psql host=db|password|=|hunter2|dbname=app", "psql host=db|password|***|***"),
        ("sh -c PGPASSWORD=hunter2|psql|-h|db", "sh -c PGPASSWORD=***|psql|-h|db"),
        (
            "sh -c curl|-H|'Authorization:|Bearer|hunter2'|db",
            "sh -c curl|-H|'Authorization:|***'|db",
        ),
        ("sh -c app|--password|\"my|hunter2\"|x", "sh -c app|--password|\"***\"|x"),
        ("curl -H Authorization:Bearer|hunter2 db", "curl -H Authorization:*** db"),
        ("curl -HAuthorization:|Bearer|hunter2 db", "curl -HAuthorization:|*** db"),
        (
            "curl --header=Authorization:|Basic|aHVudGVyMg== db",
            "curl --header=Authorization:|*** db",
        ),
        ("curl -H Cookie:|a=hunter2;|b=hunter2 db", "curl -H Cookie:|*** db"),
        ("curl -d {\"password\":|\"hunter2\",|\"a\":|1} db", "curl -d {\"password\":|\"*** db"),
        ("curl -sSu ops:hunter2 db", "curl -sSu ops:*** db"),
        ("curl -uops:hunter2 db", "curl -uops:*** db"),
        ("curl -sb session=hunter2 db", "curl -sb *** db"),
        ("curl -x ops:hunter2@proxy:3128 db", "curl -x ops:***@proxy:3128 db"),
        ("curl --oauth2-bearer hunter2 db", "curl --oauth2-bearer *** db"),
        ("http -a ops:hunter2 db", "http -a *** db"),
        ("app --auth-header Bearer|hunter2", "app --auth-header Bearer|***"),
        // Addresses.
        ("app postgres://ops:pa/ss#hunter2@db/app", "app postgres://ops:***@db/app"),
        ("app https://ops%3Ahunter2@db/", "app https://ops%3A***@db/"),
        (
            "app amqp://u:hunter2@h1/v,amqp://u:hunter2@h2/v",
            "app amqp://u:***@h1/v,amqp://u:***@h2/v",
        ),
        ("app mongodb+srv://u:hunter2@h1,h2/db", "app mongodb+srv://u:***@h1,h2/db"),
        ("app redis://:hunter2@db:6379/0", "app redis://:***@db:6379/0"),
        ("app --dsn=ops:hunter2@tcp(db:3306)/app", "app --dsn=ops:***@tcp(db:3306)/app"),
        ("env https_proxy=ops:hunter2@proxy:3128 app", "env https_proxy=ops:***@proxy:3128 app"),
        (
            "java -Durl=jdbc:mysql://h/db?user=x&password=hunter2",
            "java -Durl=jdbc:mysql://h/db?user=x&password=***",
        ),
        (
            "app jdbc:sqlserver://h;user=sa;password=hunter2;x=y",
            "app jdbc:sqlserver://h;user=sa;password=***",
        ),
        ("app jdbc:oracle:thin:scott/hunter2@//h:1521/s", "app jdbc:***@//h:1521/s"),
        ("sqlplus scott/hunter2@db", "sqlplus ***"),
        (
            "expdp userid=scott/hunter2@db encryption_password=hunter2",
            "expdp *** encryption_password=***",
        ),
        (
            "az x --connection-string AccountName=x;AccountKey=hunter2/==;E=y",
            "az x --connection-string AccountName=x;AccountKey=***",
        ),
        ("restic -r rest:https://ops:hunter2@h/r", "restic -r rest:https://ops:***@h/r"),
        ("curl https://h/b?sig=hunter2&se=1", "curl https://h/b?sig=***"),
        ("app https://token:hunter2@h/", "app https://token:***@h/"),
        // Tools.
        ("vault login hunter2", "vault login ***"),
        ("vault login -no-store hunter2", "vault login -no-store ***"),
        (
            "vault write auth/approle/login role_id=x secret_id=hunter2",
            "vault write auth/approle/login *** secret_id=***",
        ),
        ("vault operator unseal hunter2", "vault operator unseal ***"),
        ("redis-cli AUTH hunter2", "redis-cli AUTH ***"),
        ("redis-cli CONFIG SET requirepass hunter2", "redis-cli CONFIG *** *** ***"),
        ("redis-server --requirepass hunter2", "redis-server --requirepass ***"),
        (
            "aws configure set aws_secret_access_key hunter2",
            "aws configure set aws_secret_access_key ***",
        ),
        ("npm config set //r/:_authToken hunter2", "npm config set *** ***"),
        ("npm publish --//r/:_authToken=hunter2", "npm publish --//r/:_authToken=***"),
        ("gh secret set X --body hunter2", "gh secret set *** --body ***"),
        (
            "kubectl create secret generic x --from-literal=k=hunter2",
            "kubectl create secret *** *** --from-literal=***",
        ),
        ("env SSHPASS=hunter2 sshpass -e ssh h", "env SSHPASS=*** sshpass -e ssh h"),
        ("sshpass -phunter2 ssh -p 2222 h", "sshpass -p*** ssh -p *** h"),
        ("plink -pw hunter2 h", "plink -pw *** h"),
        ("xfreerdp /u:ops /p:hunter2 /v:h", "xfreerdp /u:ops /p:*** /v:h"),
        ("lftp -u ops,hunter2 h", "lftp -u ops,*** h"),
        ("usermod -p hunter2 ops", "usermod -p *** ops"),
        ("sqlcmd -S h -P hunter2", "sqlcmd -S h -P ***"),
        ("mosquitto_pub -u x -P hunter2", "mosquitto_pub -u x -P ***"),
        ("snmpget -v3 -A hunter2 -X hunter2 h", "snmpget -v3 -A *** -X *** h"),
        ("pkcs11-tool --pin hunter2 -O", "pkcs11-tool --pin *** -O"),
        (
            "mount -t cifs -o username=x,password=hunter2 //h/s /m",
            "mount -t *** -o username=x,password=*** //h/s /m",
        ),
        (
            "java -Djavax.net.ssl.keyStorePassword=hunter2 -jar a.jar",
            "java -Djavax.net.ssl.keyStorePassword=*** -jar a.jar",
        ),
        ("env MYSQL_PWD=hunter2 mysql", "env MYSQL_PWD=*** mysql"),
        (
            "app --encryptionKey hunter2 --signingKey=hunter2",
            "app --encryptionKey *** --signingKey=***",
        ),
        ("app --private-key -----BEGIN|RSA|PRIVATE|KEY-----hunter2", "app --private-key ***"),
        ("app --data -----BEGIN|PRIVATE|KEY-----hunter2", "app --data ***"),
        // Tokens by their prefix.
        ("app deploy ghp_0123456789abcdefghij", "app deploy ***"),
        ("app x=hvs.CAESIJ0123456789abcdef y", "app x=*** y"),
        ("app eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.c2ln", "app ***"),
        // Not secrets, but some are hidden anyway.
        (
            "docker run -p 8080:80 -e X=y --sig-proxy=false img",
            "docker run -p *** -e X=y --sig-proxy=false img",
        ),
        (
            "docker pull repo/img:tag@sha256:0123456789abcdef",
            "docker pull repo/img:***@sha256:0123456789abcdef",
        ),
        (
            "docker pull img:tag@sha256:0123456789abcdef",
            "docker pull img:***@sha256:0123456789abcdef",
        ),
        ("docker build --secret id=npm,src=/x .", "docker build --secret *** ."),
        (
            "app --secret-file /path --keyring k --key-file f",
            "app --secret-file /path --keyring k --key-file f",
        ),
        (
            "app --public-key abc --monkey x --bypass y",
            "app --public-key abc --monkey x --bypass y",
        ),
        (
            "app --tls-key /etc/k.pem --private-key ./k.pem",
            "app --tls-key /etc/k.pem --private-key ./k.pem",
        ),
        (
            "env GOOGLE_APPLICATION_CREDENTIALS=/etc/g.json app",
            "env GOOGLE_APPLICATION_CREDENTIALS=/etc/g.json app",
        ),
        ("env AWS_ACCESS_KEY_ID=AKIA0123 aws", "env AWS_ACCESS_KEY_ID=AKIA0123 aws"),
        ("adduser --disabled-password bob", "adduser --disabled-password bob"),
        ("gh auth login --with-token --hostname h", "gh auth login --with-token --hostname ***"),
        (
            "git -c credential.helper=store clone https://h/r",
            "git -c credential.helper=store clone https://h/r",
        ),
        ("ssh -o PasswordAuthentication=no git@h", "ssh -o PasswordAuthentication=no git@h"),
        (
            "openssl enc -passin file:/run/p -pass stdin",
            "openssl enc -passin file:/run/p -pass ***",
        ),
        ("curl http://h:8080/a@b --cookie-jar /tmp/j", "curl http://h:***@b --cookie-jar /tmp/j"),
        ("app mailto:ops@example.com a:b@c.service", "app mailto:***@example.com a:***@c.service"),
        ("env npm_config_user_agent=npm/9 node x", "env npm_config_user_agent=npm/9 node x"),
        ("kubectl get secret foo -o yaml", "kubectl get secret *** -o ***"),
        (
            "app --max-tokens 100 --token-ttl 5m key:value",
            "app --max-tokens 100 --token-ttl 5m key:***",
        ),
        ("it's 5|o'clock", "it's 5|o'clock"),
    ];
    let mut wrong = Vec::new();
    for (given, expected) in cases {
        let nul = |text: &str| text.replace(' ', "\0").replace('|', " ");
        let shown = without_secrets(&nul(given)).replace(' ', "|").replace('\0', " ");
        if shown != expected || shown.contains("hunter2") {
            wrong.push(format!("{given}\n  became   {shown}\n  and not  {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn secrets_are_also_hidden_in_a_command_line_without_nul() {
    let cases = [
        ("app --password hunter2 --port 80", "app --password *** --port 80"),
        ("app --password 'my hunter2' --port 80", "app --password '***' --port 80"),
        ("curl -H 'Authorization: Bearer hunter2' db", "curl -H 'Authorization: ***' db"),
        ("curl -H \"X-Api-Key: hunter2\" db", "curl -H \"X-Api-Key: ***\" db"),
        ("env PGPASSWORD='a hunter2' psql -h db", "env PGPASSWORD='***' psql -h db"),
        ("nginx: master process /usr/sbin/nginx", "nginx: master process /usr/sbin/nginx"),
        ("postgres: ops app 10.0.0.1(4242) idle", "postgres: ops app 10.0.0.1(4242) idle"),
        ("x'a b'y x'a b'y", "x'a b'y x'a b'y"),
    ];
    for (given, expected) in cases {
        assert_eq!(without_secrets(given), expected);
    }
}

#[test]
fn cuts_are_marked_and_a_cut_url_shows_no_password() {
    let line = "app\0--token=0123456789\0https://ops:hunter2@db/\0";
    for max in 0..line.len() {
        let shown = redact_some(line.as_bytes(), max);
        assert!(shown.ends_with('…') && !shown.contains("hunt"), "{max}: {shown}");
    }
    assert_eq!(redact_some(line.as_bytes(), line.len()), "app\0--token=***\0https://ops:***@db/\0");
    assert_eq!(redact_some(b"a\xff\xfe", 2), "a\u{fffd}…");
}

proptest! {
    #[test]
    fn the_number_of_arguments_never_changes(text in "[-a-z=:@/%'\"\\PC\0 ]{0,80}") {
        let shown = without_secrets(&text);
        prop_assert_eq!(shown.matches('\0').count(), text.matches('\0').count());
    }

    #[test]
    fn redacting_twice_changes_nothing(text in "([-a-z=:@/%'\"\0 ]|://|token|-p|curl){0,30}") {
        let shown = without_secrets(&text);
        prop_assert_eq!(without_secrets(&shown), shown);
    }

    #[test]
    fn a_password_in_its_option_is_never_shown(secret in "[A-Z0-9]{6,40}", before in "[a-z ]{0,20}") {
        for form in ["--password=", "--password ", "TOKEN=", "--api-key ", "x://u:"] {
            let end = if form.starts_with('x') { "@h" } else { "" };
            let shown = without_secrets(&format!("{before} {form}{secret}{end}"));
            prop_assert!(!shown.contains(&secret), "{}", shown);
        }
    }

    #[test]
    fn no_part_of_an_arguments_secret_is_shown(
        words in proptest::collection::vec("[A-Z][A-Z0-9,;&@#/'\"]{5,9}", 1..5),
    ) {
        let secret = words.join(" ");
        for line in [
            format!("app\0--password\0{secret}\0-v\0"),
            format!("app\0--password={secret}\0-v\0"),
            format!("app\0-H\0Authorization: Bearer {secret}\0-v\0"),
        ] {
            let shown = without_secrets(&line);
            prop_assert!(!words.iter().any(|word| shown.contains(&word[..6])), "{}", shown);
            prop_assert!(shown.ends_with("\0-v\0"), "{}", shown);
        }
    }
}
