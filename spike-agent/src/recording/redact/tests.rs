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
