//! Answers HTTP/2 and gRPC from a recording: many streams at a time, each in its own time.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::{io::AsyncReadExt as _, net::UnixStream, time::timeout};

use super::{
    Dial,
    session::{Input, Outcome, REQUEST_LIMIT, Session},
};
use crate::replay::{
    exchange::{Answer, Exchange, Header, Sent},
    flow::Piece,
    wire::http2::{is_grpc, names, request_parts, response_parts},
};

/// What gRPC says of a server that cannot answer.
const UNAVAILABLE: &str = "14";
/// How long the real server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn serve(session: Session, io: &mut UnixStream, input: Input) -> io::Result<()> {
    let (read, write) = io.split();
    let joined = tokio::io::join(io::Cursor::new(input.bytes).chain(read), write);
    let accepted = h2::server::handshake(joined).await;
    let mut connection = accepted.map_err(io::Error::other)?;
    let session = Arc::new(Mutex::new(session));
    while let Some(stream) = connection.accept().await {
        let (request, respond) = stream.map_err(io::Error::other)?;
        let session = session.clone();
        tokio::spawn(async move {
            if let Err(error) = answer(&session, request, respond).await {
                tracing::debug!(%error, "a stubbed stream ended");
            }
        });
    }
    Ok(())
}

async fn answer(
    session: &Mutex<Session>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let content = collect(&mut body).await?;
    let asked_at = Instant::now();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut fields: Vec<Header> = vec![
        (":method".into(), head.method.as_str().to_owned().into()),
        (":path".into(), path.to_owned().into()),
    ];
    fields.extend(headers(&head.headers));
    let (label, kind) = names(&fields);
    let parts = request_parts(&fields, &content);
    let (outcome, dial) = {
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        (session.ask(&label, &kind, &parts), session.dialer())
    };
    match outcome {
        Outcome::Answer(exchange) => give(session, &mut respond, asked_at, &exchange.answer).await,
        Outcome::Fail(text) => fail(&mut respond, is_grpc(&fields), &text),
        Outcome::Pass(text) => match pass(&dial, &fields, content.clone()).await {
            Ok(answer) => {
                give(session, &mut respond, asked_at, &answer).await?;
                let session = session.lock().unwrap_or_else(PoisonError::into_inner);
                session.passed(|| exchange(label, kind, (fields, content), answer));
                Ok(())
            }
            Err(why) => fail(
                &mut respond,
                is_grpc(&fields),
                &format!("{text}; the real server: {why}"),
            ),
        },
    }
}

/// What was learned from the real server.
fn exchange(label: String, kind: String, (head, body): (Vec<Header>, Bytes), answer: Answer) -> Exchange {
    let response = match &answer {
        Answer::Stream { head, trailers, .. } => response_parts(head, &answer.bytes(), trailers.as_deref()),
        Answer::Raw { .. } => crate::replay::Parts::default(),
    };
    Exchange {
        request: request_parts(&head, &body),
        label,
        kind,
        response,
        sent: Sent::Stream { head, body },
        answer,
        started_ns: u64::MAX,
        waited: None,
        whole: true,
    }
}

async fn collect(body: &mut RecvStream) -> Result<Bytes, h2::Error> {
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        if content.len() + data.len() > REQUEST_LIMIT {
            return Err(h2::Reason::ENHANCE_YOUR_CALM.into());
        }
        body.flow_control().release_capacity(data.len())?;
        content.extend_from_slice(&data);
    }
    Ok(content.into())
}

fn headers(map: &HeaderMap) -> impl Iterator<Item = Header> {
    map.iter().map(|(name, value)| {
        let name = Bytes::copy_from_slice(name.as_str().as_bytes());
        (name, Bytes::copy_from_slice(value.as_bytes()))
    })
}

/// Fields without those that HTTP/2 has of its own.
fn map(head: &[Header]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in head.iter().filter(|(name, _)| !name.starts_with(b":")) {
        let name = HeaderName::from_bytes(name);
        let value = HeaderValue::from_maybe_shared(value.clone());
        if let (Ok(name), Ok(value)) = (name, value) {
            map.append(name, value);
        }
    }
    map
}

async fn wait(session: &Mutex<Session>, since: Instant, after: Duration) {
    let wait = {
        let session = session.lock().unwrap_or_else(PoisonError::into_inner);
        session.paced(after)
    };
    if !wait.is_zero() {
        crate::fault::timer::until(since + wait).await;
    }
}

async fn give(
    session: &Mutex<Session>,
    respond: &mut SendResponse<Bytes>,
    since: Instant,
    answer: &Answer,
) -> Result<(), h2::Error> {
    let Answer::Stream {
        head,
        after,
        pieces,
        trailers,
        reset,
    } = answer
    else {
        return Ok(());
    };
    wait(session, since, *after).await;
    let mut response = Response::new(());
    let status = head.iter().find(|(name, _)| *name == ":status");
    let status = status.and_then(|(_, value)| http::StatusCode::from_bytes(value).ok());
    *response.status_mut() = status.unwrap_or(http::StatusCode::BAD_GATEWAY);
    *response.headers_mut() = map(head);
    let ends = pieces.is_empty() && trailers.is_none() && reset.is_none();
    let mut stream = respond.send_response(response, ends)?;
    for (index, piece) in pieces.iter().enumerate() {
        wait(session, since, piece.after).await;
        let is_last = index + 1 == pieces.len() && trailers.is_none() && reset.is_none();
        stream.send_data(piece.bytes.clone(), is_last)?;
    }
    end(&mut stream, trailers.as_deref(), *reset)
}

fn end(
    stream: &mut SendStream<Bytes>,
    trailers: Option<&[Header]>,
    reset: Option<u32>,
) -> Result<(), h2::Error> {
    if let Some(trailers) = trailers {
        stream.send_trailers(map(trailers))?;
    } else if let Some(code) = reset {
        stream.send_reset(code.into());
    }
    Ok(())
}

/// An error of the stub's own.
fn fail(respond: &mut SendResponse<Bytes>, grpc: bool, text: &str) -> Result<(), h2::Error> {
    let text = format!("spike stub: {text}");
    let mut response = Response::new(());
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    if grpc {
        set("content-type", "application/grpc");
        set("grpc-status", UNAVAILABLE);
        set(
            "grpc-message",
            &utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string(),
        );
        respond.send_response(response, true)?;
        return Ok(());
    }
    set("content-type", "text/plain; charset=utf-8");
    set("x-spike", "miss");
    *response.status_mut() = http::StatusCode::BAD_GATEWAY;
    let mut stream = respond.send_response(response, false)?;
    stream.send_data(text.into(), true)
}

/// Has the real server answer, on a connection of its own.
async fn pass(dial: &Dial, head: &[Header], body: Bytes) -> Result<Answer, String> {
    let exchanged = async {
        let stream = dial().await.map_err(|error| error.to_string())?;
        let (client, connection) = h2::client::handshake(stream)
            .await
            .map_err(|error| error.to_string())?;
        let driving = tokio::spawn(connection);
        let answer = ask(client, head, body, || ()).await;
        driving.abort();
        answer.map_err(|error| error.to_string())
    };
    let answered = timeout(PATIENCE, exchanged).await;
    answered.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
}

/// Sends a request and collects its answer; tells when it has been handed over.
pub(in crate::replay) async fn ask(
    client: h2::client::SendRequest<Bytes>,
    head: &[Header],
    body: Bytes,
    handed_over: impl FnOnce(),
) -> Result<Answer, h2::Error> {
    let pseudo = |name: &str| {
        let found = head.iter().find(|(known, _)| known == name.as_bytes());
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    let mut request = Request::new(());
    *request.method_mut() = pseudo(":method")
        .and_then(|method| method.parse().ok())
        .unwrap_or(http::Method::GET);
    let authority = pseudo(":authority").unwrap_or_else(|| "localhost".to_owned());
    let uri = format!(
        "http://{authority}{}",
        pseudo(":path").unwrap_or_else(|| "/".to_owned())
    );
    *request.uri_mut() = uri
        .parse()
        .map_err(|_| h2::Error::from(h2::Reason::PROTOCOL_ERROR))?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = map(head);
    let sent_at = Instant::now();
    let mut client = client.ready().await?;
    let (response, mut stream) = client.send_request(request, body.is_empty())?;
    if !body.is_empty() {
        stream.send_data(body, true)?;
    }
    handed_over();
    let (head, mut content) = response.await?.into_parts();
    let after = sent_at.elapsed();
    let mut pieces = Vec::new();
    while let Some(data) = content.data().await {
        let bytes = data?;
        content.flow_control().release_capacity(bytes.len())?;
        if !bytes.is_empty() {
            pieces.push(Piece {
                after: sent_at.elapsed(),
                bytes,
            });
        }
    }
    let trailers = content.trailers().await?;
    let mut fields: Vec<Header> = vec![(":status".into(), head.status.as_str().to_owned().into())];
    fields.extend(headers(&head.headers));
    Ok(Answer::Stream {
        head: fields,
        after,
        pieces,
        trailers: trailers.map(|trailers| headers(&trailers).collect()),
        reset: None,
    })
}
