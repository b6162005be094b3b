//! As attacker and as user: what of a command line is hidden, and what is left.

use proptest::prelude::*;

use super::*;

#[test]
fn the_options_of_real_tools_lose_their_secrets_and_nothing_else() {
    // A blank parts the arguments here; `|` is a blank inside one.
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
        ("curl https://db/?token=&page=2", "curl https://db/?token=&page=2"),
        ("env TOKEN= app", "env TOKEN= app"),
        ("curl https://ops:hunter2@db/x?y=1", "curl https://ops:***@db/x?y=1"),
        ("curl -H Authorization:|Bearer|abc.def db", "curl -H Authorization:|*** db"),
        ("curl -H X-Api-Key:hunter2 db", "curl -H X-Api-Key:*** db"),
        ("curl https://db/?token=abc&page=2", "curl https://db/?token=***&page=2"),
        ("curl -d {\"password\":\"hunter2\",\"a\":1}", "curl -d {\"password\":\"***\",\"a\":1}"),
        ("psql postgresql://ops:hunter2@db/app", "psql postgresql://ops:***@db/app"),
        ("psql host=db|password=hunter2|dbname=app", "psql host=db|password=***|dbname=app"),
        ("env PGPASSWORD=hunter2 psql -h db", "env PGPASSWORD=*** psql -h db"),
        ("env AWS_SECRET_ACCESS_KEY=a/b+c aws s3 ls", "env AWS_SECRET_ACCESS_KEY=*** aws s3 ls"),
        (
            "git clone https://x-access-token:ghp_x@host/r",
            "git clone https://x-access-token:***@host/r",
        ),
        ("git clone https://ghp_0123456789abcdefghij@host/r", "git clone https://***@host/r"),
        ("docker login -u ops -p hunter2 host", "docker login -u ops -p *** host"),
        ("kubectl --token hunter2 get pods", "kubectl --token *** get pods"),
        ("vault login -token=hunter2", "vault login -token=***"),
        ("ldapsearch -x -w hunter2 -b dc=x", "ldapsearch -x -w *** -b dc=x"),
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
        // Not secrets.
        (
            "app --password-file /run/p --tls-key=/etc/k.pem",
            "app --password-file /run/p --tls-key=/etc/k.pem",
        ),
        ("psql --no-password -h db", "psql --no-password -h db"),
        ("docker login --password-stdin host", "docker login --password-stdin host"),
        ("app --password --host db", "app --password --host db"),
        ("grep -p x", "grep -p x"),
        ("kill -TERM 4100", "kill -TERM 4100"),
        ("sort --key=2 f", "sort --key=2 f"),
        ("env PWD=/home/ops sh", "env PWD=/home/ops sh"),
        ("rsync ops@db:/var/x .", "rsync ops@db:/var/x ."),
        ("nginx: master process", "nginx: master process"),
        // Values with blanks in them, and with signs that end others.
        ("app --password correct|horse|battery --port 80", "app --password *** --port 80"),
        ("app --password=correct|horse --port 80", "app --password=*** --port 80"),
        ("app --password=a&b;c,d@e --port 80", "app --password=*** --port 80"),
        ("env PGPASSWORD=a|b psql", "env PGPASSWORD=*** psql"),
        ("psql host=db|password='my|secret'|dbname=app", "psql host=db|password='***'|dbname=app"),
        ("psql host=db|password|=|hunter2|dbname=app", "psql host=db|password|=|***|dbname=app"),
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
        (
            "curl -d {\"password\":|\"hunter2\",|\"a\":|1} db",
            "curl -d {\"password\":|\"***\",|\"a\":|1} db",
        ),
        ("curl -sSu ops:hunter2 db", "curl -sSu ops:*** db"),
        ("curl -uops:hunter2 db", "curl -uops:*** db"),
        ("curl -sb session=hunter2 db", "curl -sb session=*** db"),
        ("curl -x ops:hunter2@proxy:3128 db", "curl -x ops:***@proxy:3128 db"),
        ("curl --oauth2-bearer hunter2 db", "curl --oauth2-bearer *** db"),
        ("http -a ops:hunter2 db", "http -a ops:*** db"),
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
            "app jdbc:sqlserver://h;user=sa;password=***;x=y",
        ),
        (
            "app jdbc:oracle:thin:scott/hunter2@//h:1521/s",
            "app jdbc:oracle:thin:scott/***@//h:1521/s",
        ),
        ("sqlplus scott/hunter2@db", "sqlplus scott/***@db"),
        (
            "expdp userid=scott/hunter2@db encryption_password=hunter2",
            "expdp userid=scott/***@db encryption_password=***",
        ),
        (
            "az x --connection-string AccountName=x;AccountKey=hunter2/==;E=y",
            "az x --connection-string AccountName=x;AccountKey=***;E=y",
        ),
        ("restic -r rest:https://ops:hunter2@h/r", "restic -r rest:https://ops:***@h/r"),
        ("curl https://h/b?sig=hunter2&se=1", "curl https://h/b?sig=***&se=1"),
        ("app https://token:hunter2@h/", "app https://token:***@h/"),
        // Tools.
        ("vault login hunter2", "vault login ***"),
        ("vault login -no-store hunter2", "vault login -no-store ***"),
        (
            "vault write auth/approle/login role_id=x secret_id=hunter2",
            "vault write auth/approle/login role_id=x secret_id=***",
        ),
        ("vault operator unseal hunter2", "vault operator unseal ***"),
        ("redis-cli AUTH hunter2", "redis-cli AUTH ***"),
        ("redis-cli CONFIG SET requirepass hunter2", "redis-cli CONFIG SET requirepass ***"),
        ("redis-server --requirepass hunter2", "redis-server --requirepass ***"),
        (
            "aws configure set aws_secret_access_key hunter2",
            "aws configure set aws_secret_access_key ***",
        ),
        ("npm config set //r/:_authToken hunter2", "npm config set //r/:_authToken ***"),
        ("npm publish --//r/:_authToken=hunter2", "npm publish --//r/:_authToken=***"),
        ("gh secret set X --body hunter2", "gh secret set X --body ***"),
        (
            "kubectl create secret generic x --from-literal=k=hunter2",
            "kubectl create secret generic x --from-literal=k=***",
        ),
        ("env SSHPASS=hunter2 sshpass -e ssh h", "env SSHPASS=*** sshpass -e ssh h"),
        ("sshpass -phunter2 ssh -p 2222 h", "sshpass -p*** ssh -p 2222 h"),
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
            "mount -t cifs -o username=x,password=*** //h/s /m",
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
        // Not secrets.
        (
            "docker run -p 8080:80 -e X=y --sig-proxy=false img",
            "docker run -p 8080:80 -e X=y --sig-proxy=false img",
        ),
        (
            "docker pull repo/img:tag@sha256:0123456789abcdef",
            "docker pull repo/img:tag@sha256:0123456789abcdef",
        ),
        (
            "docker pull img:tag@sha256:0123456789abcdef",
            "docker pull img:tag@sha256:0123456789abcdef",
        ),
        ("docker build --secret id=npm,src=/x .", "docker build --secret id=npm,src=/x ."),
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
        ("gh auth login --with-token --hostname h", "gh auth login --with-token --hostname h"),
        (
            "git -c credential.helper=store clone https://h/r",
            "git -c credential.helper=store clone https://h/r",
        ),
        ("ssh -o PasswordAuthentication=no git@h", "ssh -o PasswordAuthentication=no git@h"),
        (
            "openssl enc -passin file:/run/p -pass stdin",
            "openssl enc -passin file:/run/p -pass ***",
        ),
        (
            "curl http://h:8080/a@b --cookie-jar /tmp/j",
            "curl http://h:8080/a@b --cookie-jar /tmp/j",
        ),
        ("app mailto:ops@example.com a:b@c.service", "app mailto:ops@example.com a:b@c.service"),
        ("env npm_config_user_agent=npm/9 node x", "env npm_config_user_agent=npm/9 node x"),
        ("kubectl get secret foo -o yaml", "kubectl get secret foo -o yaml"),
        (
            "app --max-tokens 100 --token-ttl 5m key:value",
            "app --max-tokens 100 --token-ttl 5m key:value",
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
fn a_command_line_in_one_piece_loses_them_too() {
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
fn what_is_cut_is_marked_and_a_url_that_is_cut_shows_no_password() {
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
    fn whatever_the_text_its_arguments_stay_as_many(text in "[-a-z=:@/%'\"\\PC\0 ]{0,80}") {
        let shown = without_secrets(&text);
        prop_assert_eq!(shown.matches('\0').count(), text.matches('\0').count());
    }

    #[test]
    fn to_hide_twice_is_to_hide_once(text in "([-a-z=:@/%'\"\0 ]|://|token|-p|curl){0,30}") {
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
