//! Secrets go, lengths stay, however the bytes are cut.

use proptest::prelude::*;

use super::*;

/// Redacts a conversation that is given in pieces; each side's bytes as they may be kept, and what was found.
fn redact(protocol: ProtocolName, pieces: &[(Side, &[u8])], cut: usize) -> ([Vec<u8>; 2], Vec<String>) {
    let mut redactor = redactor(Some(protocol), &Redaction::default());
    let (mut found, mut out) = (Found::default(), [Vec::new(), Vec::new()]);
    let mut given = [0, 0];
    for (side, bytes) in pieces {
        for piece in bytes.chunks(cut.max(1)) {
            found.at(*side, given[*side as usize]);
            given[*side as usize] += piece.len() as u64;
            redactor.take(*side, piece, &mut out[*side as usize], &mut found);
        }
    }
    for side in [Side::Client, Side::Server] {
        redactor.end(side, &mut out[side as usize]);
    }
    let mut names: Vec<String> = found.list.into_iter().map(|finding| finding.what).collect();
    names.dedup();
    (out, names)
}

fn http(pieces: &[(Side, &str)], cut: usize) -> ([String; 2], Vec<String>) {
    let pieces: Vec<(Side, &[u8])> = pieces
        .iter()
        .map(|(side, text)| (*side, text.as_bytes()))
        .collect();
    let (out, names) = redact(ProtocolName::Http1, &pieces, cut);
    (out.map(|bytes| String::from_utf8(bytes).unwrap()), names)
}

const LOGIN: &str = "POST /login?user=ann&api_key=K1secret&x=1 HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer abc.def\r\n\
    Cookie: sid=s3cr3t; theme=dark\r\nReferer: http://shop/a?token=T0k3n&b=1\r\nX-Api-Key: zzz\r\n\
    Content-Type: application/json\r\nContent-Length: 113\r\n\r\n\
    {\"user\": \"ann\", \"password\": \"hun\\\"ter2\", \"tokens\": [\"a1\", {\"x\": \"b2\", \"n\": 42}], \"pin\": 1234, \"note\": \"kept\"}    ";
const WELCOME: &str = "HTTP/1.1 200 OK\r\nSet-Cookie: sid=n3w; Path=/; HttpOnly\r\nTransfer-Encoding: chunked\r\n\
    Content-Type: application/json\r\n\r\n10\r\n{\"access_token\":\r\n0B\r\n \"eyJhbGci\"\r\n1\r\n}\r\n0\r\n\r\n";

#[test]
fn http_loses_its_secrets_and_nothing_else() {
    for cut in [1, 2, 3, 7, 64, 10_000] {
        let ([request, response], names) = http(
            &[
                (Side::Client, LOGIN),
                (Side::Server, WELCOME),
                (Side::Client, "GET /b?password=xyz HTTP/1.1\r\nHost: shop\r\n\r\n"),
            ],
            cut,
        );
        let expected = LOGIN
            .replace("K1secret", "********")
            .replace("abc.def", "*******")
            .replace("s3cr3t", "******")
            .replace("dark", "****")
            .replace("T0k3n", "*****")
            .replace("zzz", "***")
            .replace("hun\\\"ter2", "*********")
            .replace("\"a1\"", "\"**\"")
            .replace("\"b2\"", "\"**\"")
            .replace("42", "11")
            .replace("1234", "1111");
        let expected = format!("{expected}GET /b?password=*** HTTP/1.1\r\nHost: shop\r\n\r\n");
        assert_eq!(request, expected, "cut to {cut}");
        let expected = WELCOME.replace("n3w", "***").replace("eyJhbGci", "********");
        assert_eq!(response, expected, "cut to {cut}");
        for name in [
            "query api_key",
            "header authorization",
            "header cookie",
            "query token",
            "header x-api-key",
            "json password",
            "json tokens",
            "json pin",
            "header set-cookie",
            "json access_token",
            "query password",
        ] {
            assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
        }
    }
}

#[test]
fn forms_lose_their_secrets() {
    let body = "user=ann&pass%77ord=a%20b&remember=1&new_password=x+y";
    let head = |kind: &str, length| {
        format!("POST / HTTP/1.1\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n")
    };
    let request = head("application/x-www-form-urlencoded", body.len()) + body;
    let ([out, _], _) = http(&[(Side::Client, &request)], 5);
    assert!(
        out.ends_with("user=ann&pass%77ord=*****&remember=1&new_password=***"),
        "{out}"
    );
    let body = "--XyZ\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nann\r\n\
        --XyZ\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nhun\r\nter--2\r\n--XyZ--\r\n";
    let request = head("multipart/form-data; boundary=XyZ", body.len()) + body;
    let ([out, _], _) = http(&[(Side::Client, &request)], 3);
    assert_eq!(out.len(), request.len());
    assert!(
        !out.contains("hun")
            && !out.contains("ter")
            && out.contains("\r\nann\r\n")
            && out.ends_with("--XyZ--\r\n"),
        "{out}"
    );
}

#[test]
fn what_comes_after_an_upgrade_is_left_alone() {
    let ([request, response], _) = http(
        &[
            (
                Side::Client,
                "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\n\r\n",
            ),
            (
                Side::Server,
                "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n",
            ),
            (Side::Client, "Cookie: a=b\r\n"),
        ],
        9,
    );
    assert!(
        request.ends_with("Sec-WebSocket-Key: abc\r\n\r\nCookie: a=b\r\n")
            && response.starts_with("HTTP/1.1 101")
    );
}

#[test]
fn a_gap_is_passed_over_in_a_body_alone() {
    let mut redactor = redactor(Some(ProtocolName::Http1), &Redaction::default());
    let (mut found, mut out) = (Found::default(), Vec::new());
    let head = b"POST / HTTP/1.1\r\nContent-Type: image/png\r\nContent-Length: 100\r\n\r\n0123456789";
    redactor.take(Side::Client, head, &mut out, &mut found);
    assert!(redactor.gap(Side::Client, 80));
    redactor.take(
        Side::Client,
        b"9876543210GET /?token=abc HTTP/1.1\r\n",
        &mut out,
        &mut found,
    );
    assert!(out.ends_with(b"token=*** HTTP/1.1\r\n"));
    assert!(!redactor.gap(Side::Client, 1), "in a head");
    out.clear();
    let head = b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{\"token\": \"";
    redactor.take(Side::Server, head, &mut out, &mut found);
    assert!(redactor.gap(Side::Server, 10));
    redactor.take(
        Side::Server,
        b"cret\"}   HTTP/1.1 200 OK\r\n",
        &mut out,
        &mut found,
    );
    assert!(
        out.ends_with(b"*********HTTP/1.1 200 OK\r\n"),
        "all that may be of the secret"
    );
}

#[test]
fn compressed_bodies_are_kept_only_without_secrets() {
    use std::io::Write as _;
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let response = |coding: &str, body: &[u8], chunked: bool| {
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: {coding}\r\n");
        if !chunked {
            return [
                format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(),
                body,
            ]
            .concat();
        }
        let chunks: Vec<u8> = body
            .chunks(7)
            .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())
            .collect();
        [
            format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes(),
            &chunks,
            b"0\r\n\r\n",
        ]
        .concat()
    };
    let (open, secret) = (
        gzip("{\"user\": \"ann\"}"),
        gzip("{\"user\": \"ann\", \"password\": \"abc\"}"),
    );
    let next = b"HTTP/1.1 204 No Content\r\nX-Api-Key: abc\r\n\r\n";
    for cut in [1, 3, 10_000] {
        for chunked in [false, true] {
            for (coding, body, is_kept) in [
                ("gzip", &open, true),
                ("gzip", &secret, false),
                ("br", &open, false),
            ] {
                let given = [&response(coding, body, chunked)[..], next].concat();
                let (out, _) = redact(ProtocolName::Http1, &[(Side::Server, &given)], cut);
                assert_eq!(out[1].len(), given.len());
                assert!(out[1].ends_with(b"\r\nX-Api-Key: ***\r\n\r\n"));
                let end = given.len() - next.len();
                assert_eq!(out[1][..end] == given[..end], is_kept, "{coding} {chunked} {cut}");
            }
        }
    }
    let half = &response("gzip", &open, false);
    let (out, _) = redact(ProtocolName::Http1, &[(Side::Server, &half[..half.len() - 5])], 8);
    assert_eq!(out[1].len(), half.len() - 5);
    assert!(out[1].ends_with(b"****"));
}

fn pg(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 4).to_be_bytes();
    [&[kind][..], &length, body].concat()
}

fn gone(out: &[Vec<u8>; 2], given: [usize; 2], secrets: &[&str]) {
    assert_eq!([out[0].len(), out[1].len()], given);
    for bytes in out {
        for secret in secrets {
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} in {:?}", String::from_utf8_lossy(bytes));
        }
    }
}

#[test]
fn postgresql_loses_passwords_parameters_and_columns() {
    let startup = b"\0\0\0\x15\0\x03\0\0user\0ann-open\0".to_vec();
    let startup = [&(startup.len() as u32).to_be_bytes()[..], &startup[4..]].concat();
    let described = pg(
        b'T',
        b"\0\x02name\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0password\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    );
    let row = |secret: &[u8]| pg(b'D', &[b"\0\x02\0\0\0\x03ann\0\0\0\x06", secret].concat());
    let client = [
        startup,
        pg(b'p', b"S1pass\0"),
        pg(b'Q', b"SELECT name, password FROM users WHERE token = 'S2tokn'\0"),
        pg(
            b'P',
            b"st\0INSERT INTO users (name, password) VALUES ($1, $2)\0\0\0",
        ),
        pg(b'B', b"\0st\0\0\0\0\x02\0\0\0\x03bob\0\0\0\x06S3parm\0\0"),
        pg(b'E', b"\0\0\0\0\0"),
        pg(b'S', b""),
        pg(b'P', b"se\0SELECT * FROM users\0\0\0"),
        pg(b'D', b"Sse\0"),
        pg(b'S', b""),
        pg(b'B', b"\0se\0\0\0\0\0\0\0"),
        pg(b'E', b"\0\0\0\0\0"),
        pg(b'S', b""),
    ]
    .concat();
    let server = [
        pg(b'R', b"\0\0\0\0"),
        pg(b'Z', b"I"),
        described.clone(),
        row(b"S4colm"),
        pg(b'C', b"SELECT 1\0"),
        pg(b'Z', b"I"),
        pg(b'1', b""),
        pg(b'2', b""),
        pg(b'E', b"SERROR\0DKey (password)=(S5fail) already exists.\0\0"),
        pg(b'Z', b"I"),
        pg(b'1', b""),
        described,
        pg(b'Z', b"I"),
        pg(b'2', b""),
        row(b"S6bind"),
        pg(b'C', b"SELECT 1\0"),
        pg(b'Z', b"I"),
    ]
    .concat();
    for cut in [1, 5, 17, 100_000] {
        let (out, names) = redact(
            ProtocolName::Postgres,
            &[(Side::Client, &client), (Side::Server, &server)],
            cut,
        );
        gone(
            &out,
            [client.len(), server.len()],
            &["S1pass", "S2tokn", "S3parm", "S4colm", "S5fail", "S6bind"],
        );
        let shown = String::from_utf8_lossy(&out[0]).into_owned() + &String::from_utf8_lossy(&out[1]);
        for open in [
            "ann-open",
            "bob",
            "SELECT name, password FROM users",
            "already exists",
            "ann",
        ] {
            assert!(shown.contains(open), "{open}");
        }
        assert!(
            names.iter().any(|name| name == "postgresql password")
                && names.iter().any(|name| name == "sql column"),
            "{names:?}"
        );
    }
}

#[test]
fn redis_loses_what_commands_and_names_say() {
    let command = |words: &[&str]| {
        let words: String = words
            .iter()
            .map(|word| format!("${}\r\n{word}\r\n", word.len()))
            .collect();
        format!("*{}\r\n{words}", words.matches('$').count())
    };
    let client = [
        command(&["AUTH", "ann", "S1auth"]),
        command(&["HELLO", "3", "AUTH", "ann-open", "S2helo"]),
        command(&["CONFIG", "SET", "requirepass", "S3conf"]),
        command(&["ACL", "SETUSER", "bob-open", ">S4user"]),
        command(&["HSET", "user:1", "name", "ann-name", "password", "S5hash"]),
        command(&["SET", "session:token", "S6keyv"]),
        command(&["SET", "doc", "{\"secret\": \"S7json\", \"open\": \"open-json\"}"]),
        command(&["HGETALL", "user:1"]),
        command(&["GET", "session:token"]),
        command(&["SET", "", "open-value"]),
        "AUTH S8line\r\n".to_owned(),
        command(&["GET", "plain"]),
    ]
    .concat();
    let server = "+OK\r\n%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n+OK\r\n+OK\r\n:2\r\n+OK\r\n+OK\r\n\
        *4\r\n$4\r\nname\r\n$8\r\nann-name\r\n$8\r\npassword\r\n$6\r\nS5hash\r\n$6\r\nS6keyv\r\n+OK\r\n-ERR no\r\n$10\r\nopen-reply\r\n";
    for cut in [1, 4, 1000] {
        let (out, _) = redact(
            ProtocolName::Redis,
            &[
                (Side::Client, client.as_bytes()),
                (Side::Server, server.as_bytes()),
            ],
            cut,
        );
        let secrets = [
            "S1auth", "S2helo", "S3conf", "S4user", "S5hash", "S6keyv", "S7json", "S8line",
        ];
        gone(&out, [client.len(), server.len()], &secrets);
        let [client, server] = out.map(|bytes| String::from_utf8(bytes).unwrap());
        for open in [
            "ann-open",
            "bob-open",
            "ann-name",
            "open-json",
            "open-value",
            "password",
        ] {
            assert!(client.contains(open), "{open} in {client}");
        }
        assert!(
            server.contains("ann-name") && server.contains("open-reply") && server.contains("redis"),
            "{server}"
        );
    }
}

#[test]
fn mysql_loses_logins_literals_and_columns() {
    let packet = |number: u8, payload: &[u8]| [&[payload.len() as u8, 0, 0, number][..], payload].concat();
    let column = |name: &str| {
        let texts = ["def", "shop", "users", "users", name, name];
        let texts: Vec<u8> = texts
            .iter()
            .flat_map(|text| [&[text.len() as u8][..], text.as_bytes()].concat())
            .collect();
        [&texts[..], b"\x0c\x21\0\xff\0\0\0\xfd\0\0\0\0\0"].concat()
    };
    let login = [
        &(0x8000_u32 | 0x200).to_le_bytes()[..],
        &[0; 28],
        b"ann-open\0\x06S1auth",
    ]
    .concat();
    let client = [
        packet(1, &login),
        packet(3, b"S2more"),
        packet(
            0,
            b"\x03SELECT name, api_key FROM users WHERE password = 'S3sqls'",
        ),
    ];
    let server = [
        packet(0, b"\x0a8.0\0"),
        [
            packet(2, b"\xfecaching_sha2_password\0"),
            packet(4, b"\0\0\0\x02\0\0\0"),
        ]
        .concat(),
        [
            packet(1, b"\x02"),
            packet(2, &column("name")),
            packet(3, &column("api_key")),
            packet(4, b"\xfe\0\0\x02\0"),
            packet(5, b"\x08ann-name\x06S4colm"),
            packet(6, b"\xfe\0\0\x02\0"),
        ]
        .concat(),
    ];
    let pieces: Vec<(Side, &[u8])> = vec![
        (Side::Server, &server[0]),
        (Side::Client, &client[0]),
        (Side::Server, &server[1][..24 + 4]),
        (Side::Client, &client[1]),
        (Side::Server, &server[1][24 + 4..]),
        (Side::Client, &client[2]),
        (Side::Server, &server[2]),
    ];
    for cut in [1, 9, 1000] {
        let (out, _) = redact(ProtocolName::MySql, &pieces, cut);
        let given = [client.concat().len(), server.concat().len()];
        gone(&out, given, &["S1auth", "S2more", "S3sqls", "S4colm"]);
        let shown = String::from_utf8_lossy(&out[0]).into_owned() + &String::from_utf8_lossy(&out[1]);
        for open in ["ann-open", "SELECT name, api_key", "ann-name", "caching_sha2"] {
            assert!(shown.contains(open), "{open} in {shown}");
        }
    }
}

#[test]
fn nats_loses_what_clients_connect_with() {
    let client = "CONNECT {\"user\":\"ann-open\",\"pass\":\"S1pass\",\"auth_token\":\"S2tokn\"}\r\nPUB a.b 5\r\nhello\r\n";
    let (out, _) = redact(ProtocolName::Nats, &[(Side::Client, client.as_bytes())], 6);
    gone(&out, [client.len(), 0], &["S1pass", "S2tokn"]);
    let kept = String::from_utf8_lossy(&out[0]).into_owned();
    assert!(kept.contains("ann-open") && kept.ends_with("hello\r\n"));
}

#[test]
fn http2_is_written_anew_without_secrets() {
    use crate::recording::http2::{DATA, END_HEADERS, END_STREAM, Frame, HEADERS, PREFACE, field, message};
    let mut encoder = fluke_hpack::Encoder::new();
    let mut client = PREFACE.to_vec();
    let mut send = |kind, flags, stream, payload: &[u8]| {
        Frame {
            length: payload.len(),
            kind,
            flags,
            stream,
        }
        .write(&mut client);
        client.extend_from_slice(payload);
    };
    // The second block refers to the first.
    for stream in [1, 3] {
        let fields: [(&[u8], &[u8]); 5] = [
            (b":method", b"POST"),
            (b":path", b"/a?token=S1path&b=c"),
            (b"authorization", b"Bearer S2auth"),
            (b"content-type", b"application/json"),
            (b"x-open", b"open-value"),
        ];
        send(HEADERS, END_HEADERS, stream, &encoder.encode(fields));
        send(
            DATA,
            END_STREAM,
            stream,
            b"{\"password\":\"S3json\",\"a\":\"open-json\"}",
        );
    }
    for cut in [1, 10, 10_000] {
        let (out, names) = redact(ProtocolName::Http2, &[(Side::Client, &client)], cut);
        for stream in [1, 3] {
            let read = message(&out[0], stream);
            let of =
                |name: &[u8]| String::from_utf8_lossy(field(&read.blocks[0], name).unwrap()).into_owned();
            assert_eq!(of(b":path"), "/a?token=******&b=c");
            assert_eq!(
                (of(b"authorization"), of(b"x-open")),
                ("Bearer ******".to_owned(), "open-value".to_owned())
            );
            assert_eq!(
                String::from_utf8_lossy(&read.body),
                "{\"password\":\"******\",\"a\":\"open-json\"}"
            );
            assert!(read.ends);
        }
        assert!(
            names.iter().any(|name| name == "header authorization"),
            "{names:?}"
        );
    }
}

proptest! {
    #[test]
    fn json_stays_json_of_the_same_length_and_shape(
        secret in r#"[^"\\\x00-\x1f]{1,40}"#, other in r#"[^"\\\x00-\x1f]{0,40}"#, number in any::<f64>(), cut in 1_usize..50
    ) {
        prop_assume!(number.is_finite());
        let body = serde_json::json!({"password": secret, "b": [other.clone(), {"token": [secret, {"c": number}]}], "d": other}).to_string();
        let request = format!("POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let (out, _) = redact(ProtocolName::Http1, &[(Side::Client, request.as_bytes())], cut);
        prop_assert_eq!(out[0].len(), request.len());
        let kept = &out[0][request.len() - body.len()..];
        let kept: serde_json::Value = serde_json::from_slice(kept).unwrap();
        prop_assert_eq!(&kept["d"], &serde_json::json!(other));
        prop_assert_eq!(&kept["b"][0], &serde_json::json!(other));
        prop_assert!(kept["password"].as_str().unwrap().bytes().all(|byte| byte == STAR));
        prop_assert!(kept["b"][1]["token"][0].as_str().unwrap().bytes().all(|byte| byte == STAR));
    }

    #[test]
    fn whatever_comes_lengths_stay(pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..20)) {
        for protocol in [ProtocolName::Http1, ProtocolName::Redis, ProtocolName::Postgres, ProtocolName::MySql] {
            let pieces: Vec<(Side, &[u8])> = pieces
                .iter()
                .map(|(client, bytes)| (if *client { Side::Client } else { Side::Server }, bytes.as_slice()))
                .collect();
            let (out, _) = redact(protocol, &pieces, 64);
            for side in [Side::Client, Side::Server] {
                let given: usize = pieces.iter().filter(|(of, _)| *of == side).map(|(_, bytes)| bytes.len()).sum();
                prop_assert_eq!(out[side as usize].len(), given);
            }
        }
    }
}
