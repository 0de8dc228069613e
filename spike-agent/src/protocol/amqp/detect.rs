//! Whether bytes are AMQP's, and where a frame begins.

use super::{END, GREETING, HEAD, METHOD, Side, frame, method};
use crate::protocol::{Step, Verdict};

pub(super) fn detect(from: Side, bytes: &[u8]) -> Verdict {
    if from == Side::Client && bytes.starts_with(GREETING) {
        return Verdict::Yes;
    }
    if from == Side::Client && GREETING.starts_with(bytes) {
        return Verdict::Maybe;
    }
    match frame(bytes) {
        Err(Step::Need(_)) => Verdict::Maybe,
        Err(_) => Verdict::No,
        Ok(_) if are_frames(bytes) => Verdict::Yes,
        Ok(frame) if frame.kind != METHOD || bytes.len() > HEAD + frame.size => Verdict::No,
        Ok(_) => match bytes.get(HEAD..HEAD + 4) {
            Some(code) if is_method(code) => Verdict::Maybe,
            Some(_) => Verdict::No,
            None => Verdict::Maybe,
        },
    }
}

/// Whether `bytes` start with a whole frame, and another one, or nothing, comes behind it.
pub(super) fn are_frames(bytes: &[u8]) -> bool {
    let whole = |bytes: &[u8]| {
        let frame = bytes.first().and_then(|_| frame(bytes).ok())?;
        let end = HEAD + frame.size;
        let fits = bytes.get(end) == Some(&END) && (frame.kind != METHOD || is_method(&bytes[HEAD..]));
        fits.then_some(end + 1)
    };
    let Some(end) = whole(bytes) else {
        return false;
    };
    match &bytes[end..] {
        [] => true,
        rest => !matches!(frame(rest), Err(Step::Lost)),
    }
}

fn is_method(payload: &[u8]) -> bool {
    let code = payload.first_chunk::<4>().map(|code| {
        let [class, class_low, method, method_low] = *code;
        (
            u16::from_be_bytes([class, class_low]),
            u16::from_be_bytes([method, method_low]),
        )
    });
    code.is_some_and(|code| method::known(code).is_some() || method::is_special(code))
}
