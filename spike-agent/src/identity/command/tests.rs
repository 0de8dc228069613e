//! Command lines as they are on real hosts.

use super::*;

#[track_caller]
fn check(exe: &str, cwd: &str, line: &str, expected: Option<&str>) {
    let args = shlex::split(line).unwrap();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let command = Command {
        exe,
        args: &args,
        cwd,
    };
    assert_eq!(command.program().as_deref(), expected, "{line} (in {cwd})");
}

#[test]
fn python() {
    for (line, expected) in [
        ("python3 /usr/local/bin/worker-mail.py", Some("worker-mail")),
        ("python3 script.py --port 80", Some("script")),
        ("python3 -u -W ignore -X dev script.py", Some("script")),
        ("python3 -Wignore -Xdev -OO script.py", Some("script")),
        ("python3 -uWignore script.py", Some("script")),
        ("python3 --check-hash-based-pycs always script.py", Some("script")),
        ("python3 --check-hash-based-pycs=always script.py", Some("script")),
        ("python3 -m http.server 8000", Some("http.server")),
        ("python3 -um http.server", Some("http.server")),
        ("python3 -mhttp.server", Some("http.server")),
        ("python3 -m shop.__main__", Some("shop")),
        ("python3 -- -odd.py", Some("-odd")),
        ("python3 /usr/bin/celery -A shop worker", Some("celery")),
        ("python3 /srv/shop/manage.py runserver", Some("shop")),
        ("python3 ./app.py", Some("cart")),
        ("python3 -c 'import this'", None),
        ("python3 -uc 'import this' script.py", None),
        ("python3 -", None),
        ("python3", None),
        ("python3 -m", None),
        ("python3 -W", None),
    ] {
        check("python3.11", "/srv/cart", line, expected);
    }
    check("pypy3", "/", "pypy3 script.py", Some("script"));
    check("python3.11", "/", "python3 main.py", Some("main"));
    check("python3.11", "", "python3 main.py", Some("main"));
}

#[test]
fn python_servers_are_their_applications() {
    for (line, expected) in [
        ("python3 /usr/bin/gunicorn shop.wsgi:application", "shop"),
        (
            "python3 /usr/bin/gunicorn -w 4 -b localhost:8000 shop.wsgi",
            "shop",
        ),
        (
            "python3 /usr/bin/gunicorn -k uvicorn.workers.UvicornWorker orders.main:app -b unix:/run/x",
            "orders",
        ),
        ("python3 /usr/bin/gunicorn -b 0.0.0.0:8000 app:app", "cart"),
        ("python3 /usr/bin/gunicorn --name billing app:app", "billing"),
        ("python3 /usr/bin/gunicorn -n billing app:app", "billing"),
        ("python3 /usr/bin/gunicorn --name=billing app:app", "billing"),
        (
            "python3 /usr/bin/gunicorn 'shop.factory:create_app(\"x\")'",
            "shop",
        ),
        ("python3 /usr/bin/gunicorn -c gunicorn.conf.py", "cart"),
        (
            "python3 /srv/venv/bin/uvicorn --host 0.0.0.0 --port 80 orders:app",
            "orders",
        ),
        ("python3 -m uvicorn orders.asgi:app", "orders"),
        ("python3 /usr/bin/flask --app orders run", "orders"),
        ("python3 -m flask --app orders/app.py:make run", "orders"),
        ("python3 /usr/bin/flask run", "cart"),
        ("'gunicorn: master [orders.wsgi]'", "orders"),
        ("'gunicorn: worker [orders]'", "orders"),
        ("'gunicorn: master [app:app]'", "cart"),
        ("'[celeryd: celery@host:MainProcess] -active-'", "celeryd"),
        ("'my title'", "my"),
    ] {
        check("python3.11", "/srv/cart", line, Some(expected));
    }
    check("python3.11", "/", "python3 /usr/bin/flask run", Some("flask"));
}

#[test]
fn node() {
    for (line, expected) in [
        ("node /srv/shop/index.js", Some("shop")),
        ("node dist/main.js", Some("cart")),
        ("node ../orders/src/server.mjs", Some("orders")),
        ("node ./mailer.js --port 80", Some("mailer")),
        (
            "node --max-old-space-size=4096 --inspect mailer.js",
            Some("mailer"),
        ),
        ("node -r dotenv/config mailer.js", Some("mailer")),
        (
            "node --require dotenv/config --import=tsx mailer.ts",
            Some("mailer"),
        ),
        (
            "node --env-file .env --loader ts-node/esm mailer.ts",
            Some("mailer"),
        ),
        ("node -C development mailer.js", Some("mailer")),
        ("node inspect mailer.js", Some("mailer")),
        ("node -- mailer.js", Some("mailer")),
        ("node /srv/shop/node_modules/.bin/next start", Some("shop")),
        (
            "node /srv/shop/node_modules/ts-node/dist/bin.js src/main.ts",
            Some("shop"),
        ),
        ("node /usr/lib/node_modules/npm/bin/npm-cli.js start", Some("npm")),
        ("node /usr/local/lib/node_modules/@acme/mail/cli.js", Some("mail")),
        ("'npm run start'", Some("npm")),
        ("'next-server (v14.1.0)'", Some("next-server")),
        ("node -e 'x()' mailer.js", None),
        ("node -pe 'x()'", None),
        ("node --eval 'x()'", None),
        ("node --eval='x()' y", None),
        ("node --test", None),
        ("node", None),
    ] {
        check("node", "/srv/cart", line, expected);
    }
    check("nodejs", "/", "nodejs mailer.js", Some("mailer"));
}

#[test]
fn java() {
    for (line, expected) in [
        ("java -jar shop.jar", Some("shop")),
        (
            "java -Xmx1g -jar /opt/lib/shop-1.2.3-SNAPSHOT.jar --server.port=80",
            Some("shop"),
        ),
        ("java -jar /opt/shop-service-v2.jar", Some("shop-service")),
        ("java -jar app.jar", Some("cart")),
        (
            "java -Dspring.application.name=orders -jar app.jar",
            Some("orders"),
        ),
        (
            "java -jar app.jar --spring.application.name=orders",
            Some("orders"),
        ),
        ("java -cp /opt/a.jar:/opt/b.jar com.acme.shop.Main", Some("shop")),
        (
            "java -classpath . com.acme.shop.OrderService",
            Some("OrderService"),
        ),
        (
            "java --class-path=. --add-opens java.base/java.lang=ALL-UNNAMED com.acme.Orders",
            Some("Orders"),
        ),
        (
            "java -javaagent:/opt/agent.jar -ea com.acme.Orders",
            Some("Orders"),
        ),
        (
            "java -Dcatalina.base=/x org.apache.catalina.startup.Bootstrap start",
            Some("catalina"),
        ),
        ("java -Xlog:gc kafka.Kafka server.properties", Some("Kafka")),
        ("java -p mods -m com.acme.shop/com.acme.shop.Main", Some("shop")),
        ("java --module=com.acme.shop/com.acme.shop.Main", Some("shop")),
        ("java --module com.acme.shop", Some("shop")),
        ("java @/etc/shop/options com.acme.Orders", Some("Orders")),
        ("java --source 21 Orders.java", Some("Orders")),
        ("java -version", None),
        ("java -jar", None),
        ("java", None),
    ] {
        check("java", "/srv/cart", line, expected);
    }
}

#[test]
fn ruby_perl_and_php() {
    for (exe, line, expected) in [
        ("ruby3.1", "ruby mailer.rb", Some("mailer")),
        ("ruby3.1", "ruby -W0 -I lib -r json -Ku mailer.rb", Some("mailer")),
        (
            "ruby3.1",
            "ruby -Ilib -rjson --disable gems mailer.rb",
            Some("mailer"),
        ),
        ("ruby3.1", "ruby --disable=gems -C /srv mailer.rb", Some("mailer")),
        ("ruby3.1", "ruby -S rake", Some("rake")),
        ("ruby3.1", "ruby -ne 'puts'", None),
        ("ruby3.1", "ruby /usr/bin/puma -C config/puma.rb", Some("cart")),
        ("ruby3.1", "ruby bin/rails server", Some("cart")),
        (
            "ruby3.1",
            "'puma 6.4.2 (tcp://0.0.0.0:3000) [orders]'",
            Some("orders"),
        ),
        (
            "ruby3.1",
            "'puma: cluster worker 0: 123 [orders]'",
            Some("orders"),
        ),
        ("ruby3.1", "'sidekiq 7.2 orders [0 of 5 busy]'", Some("sidekiq")),
        ("perl", "perl -w -T -I /x /usr/sbin/spamd.pl -d", Some("spamd")),
        ("perl", "/usr/bin/perl -Mstrict -CS mailer.pl", Some("mailer")),
        ("perl5.36.0", "perl -lne 'print' x", None),
        ("perl", "perl -i.bak -pe s/a/b/ x", None),
        ("perl", "perl -E 'say 1'", None),
        ("php8.2", "php /srv/shop/artisan queue:work", Some("shop")),
        (
            "php8.2",
            "php -d memory_limit=1G -c /etc/php.ini mailer.php",
            Some("mailer"),
        ),
        (
            "php8.2",
            "php -dmemory_limit=1G -f mailer.php -- -x",
            Some("mailer"),
        ),
        (
            "php8.2",
            "php -S 127.0.0.1:80 -t public router.php",
            Some("router"),
        ),
        ("php8.2", "php -S 127.0.0.1:80 -t public", None),
        ("php8.2", "php -r 'x();'", None),
        ("php8.2", "php --run 'x();' y", None),
    ] {
        check(exe, "/srv/cart", line, expected);
    }
}

#[test]
fn other_programs_have_no_script() {
    for exe in [
        "nginx",
        "php-fpm8.2",
        "pythonista",
        "nodename",
        "javac",
        "sh",
        "",
        "3.11",
    ] {
        check(exe, "/", "x script.py", None);
    }
}

proptest::proptest! {
    #[test]
    fn any_command_line_can_be_read(
        exe in "(python3|node|java|ruby|perl|php)",
        args in proptest::collection::vec("-{0,2}[\\PCa-zA-Z=:./\\[\\]]{0,12}", 0..6),
        cwd in "[/a-z.]{0,12}",
    ) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let name = Command { exe: &exe, args: &args, cwd: &cwd }.program();
        proptest::prop_assert_ne!(name.as_deref(), Some(""));
    }
}
