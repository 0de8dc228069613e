//! Answers DNS over TCP from a recording.

use std::io;

use hickory_proto::op::ResponseCode;
use tokio::{io::AsyncWriteExt as _, net::UnixStream};

use super::session::{Input, Outcome, Session};
use crate::replay::wire::dns;

pub(super) async fn serve(session: &mut Session, io: &mut UnixStream, mut input: Input) -> io::Result<()> {
    loop {
        let size = dns::framed_size(&input.bytes);
        let Some(size) = size.filter(|size| input.bytes.len() >= 2 + size) else {
            if input.more(io).await? {
                continue;
            }
            return Ok(());
        };
        let message = input.bytes[2..2 + size].to_vec();
        let asked_at = input.take(2 + size);
        let Some(question) = dns::question(&message) else {
            return Ok(());
        };
        match session.ask(&question.label, &question.label, &question.parts) {
            Outcome::Answer(exchange) => {
                session.wait(asked_at, exchange.waited.unwrap_or_default()).await;
                if let Some(answer) = dns::answer_to(&message, &exchange.answer.bytes()) {
                    io.write_all(&dns::framed(&answer)).await?;
                }
            }
            // What was not recorded has no name here: to pass it on would tell the real server of it.
            Outcome::Fail(_) | Outcome::Pass(_) => {
                if let Some(answer) = dns::failure(&message, ResponseCode::ServFail) {
                    io.write_all(&dns::framed(&answer)).await?;
                }
            }
        }
    }
}
