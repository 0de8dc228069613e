//! HTTP/2 as a recording keeps it: frames in which every header block can be read by itself.
//!
//! On the wire a header block refers to blocks before it (HPACK). A recording has each written anew, as literals that refer
//! to nothing, since secrets in them change and replay starts anywhere.

use fluke_hpack::Decoder;

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head.
pub const HEAD: usize = 9;
/// Types of frames.
pub const DATA: u8 = 0;
/// Begins a header block.
pub const HEADERS: u8 = 1;
/// Breaks a stream off.
pub const RST_STREAM: u8 = 3;
/// Begins one of what the server is about to push.
pub const PUSH_PROMISE: u8 = 5;
/// Goes on with a header block.
pub const CONTINUATION: u8 = 9;
/// Flags: the last frame of the sender in this stream.
pub const END_STREAM: u8 = 1;
/// The last frame of the header block.
pub const END_HEADERS: u8 = 4;
/// Has padding.
pub const PADDED: u8 = 8;
/// Has a priority.
pub const PRIORITY: u8 = 0x20;
/// Most bytes of a frame that every receiver takes.
const FRAME_LIMIT: usize = 16_384;

/// Names and values, as they were in a block.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Bytes behind the head.
    pub length: usize,
    /// Such as [`DATA`].
    pub kind: u8,
    /// Such as [`END_STREAM`].
    pub flags: u8,
    /// 0 for the connection.
    pub stream: u32,
}

impl Frame {
    /// From its first bytes, if they are enough.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..HEAD)?;
        Some(Self {
            length: usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]),
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
        })
    }

    /// Appends it.
    pub fn write(self, out: &mut Vec<u8>) {
        let length = (self.length as u32).to_be_bytes();
        out.extend_from_slice(&length[1..]);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
    }

    /// Where in the payload of a DATA, HEADERS or PUSH_PROMISE frame its own part is; none if that cannot be.
    pub fn content(self, payload: &[u8]) -> Option<std::ops::Range<usize>> {
        let (mut from, mut to) = (0, payload.len());
        if self.flags & PADDED != 0 {
            let padding = usize::from(*payload.first()?);
            (from, to) = (1, to.checked_sub(padding)?);
        }
        if self.kind == HEADERS && self.flags & PRIORITY != 0 {
            from += 5;
        }
        if self.kind == PUSH_PROMISE {
            from += 4;
        }
        (from <= to).then_some(from..to)
    }
}

/// A header block that refers to nothing: literals that are never indexed, without Huffman coding.
pub fn encode(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x10);
        for text in [name, value] {
            length(text.len(), &mut block);
            block.extend_from_slice(text);
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
fn length(mut value: usize, block: &mut Vec<u8>) {
    if value < 127 {
        block.push(value as u8);
        return;
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push((value % 128) as u8 | 0x80);
        value /= 128;
    }
    block.push(value as u8);
}

/// Appends the frames of a header block of `stream`.
pub fn write_headers(stream: u32, ends_stream: bool, block: &[u8], out: &mut Vec<u8>) {
    let mut pieces = block.chunks(FRAME_LIMIT).peekable();
    let mut kind = HEADERS;
    loop {
        let piece = pieces.next().unwrap_or_default();
        let is_last = pieces.peek().is_none();
        let ends = u8::from(ends_stream && kind == HEADERS) * END_STREAM;
        let frame = Frame {
            length: piece.len(),
            kind,
            flags: ends | (u8::from(is_last) * END_HEADERS),
            stream,
        };
        frame.write(out);
        out.extend_from_slice(piece);
        if is_last {
            return;
        }
        kind = CONTINUATION;
    }
}

/// What one side said in a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Header blocks: the first, and the trailers if there are some; interim responses are left out.
    pub blocks: Vec<Fields>,
    /// The content.
    pub body: Vec<u8>,
    /// Whether its end is there.
    pub ends: bool,
}

/// Reads the frames of `stream` out of bytes of a recording.
pub fn message(bytes: &[u8], stream: u32) -> Message {
    let mut message = Message::default();
    let mut block: Option<Vec<u8>> = None;
    let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    while let Some(frame) = Frame::read(rest) {
        let end = (HEAD + frame.length).min(rest.len());
        let payload = &rest[HEAD..end];
        let is_cut = payload.len() < frame.length;
        rest = &rest[end..];
        if frame.stream != stream {
            continue;
        }
        let content = frame
            .content(payload)
            .map(|range| &payload[range])
            .unwrap_or_default();
        match frame.kind {
            DATA => message.body.extend_from_slice(content),
            HEADERS => block = Some(content.to_vec()),
            CONTINUATION => {
                if let Some(block) = &mut block {
                    block.extend_from_slice(payload);
                }
            }
            _ => continue,
        }
        if frame.kind != DATA
            && frame.flags & END_HEADERS != 0
            && !is_cut
            && let Some(block) = block.take()
            && let Ok(fields) = Decoder::new().decode(&block)
        {
            let is_interim = field(&fields, b":status").is_some_and(|status| status.starts_with(b"1"));
            if !is_interim {
                message.blocks.push(fields);
            }
        }
        message.ends |= frame.kind != CONTINUATION && frame.flags & END_STREAM != 0 && !is_cut;
    }
    message
}

/// The value of the first field of this name.
pub fn field<'a>(fields: &'a [(Vec<u8>, Vec<u8>)], name: &[u8]) -> Option<&'a [u8]> {
    let field = fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    field.map(|(_, value)| value.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let long = (b"x-long".to_vec(), vec![b'a'; 40_000]);
        let fields = vec![(b":path".to_vec(), b"/a".to_vec()), long];
        let mut bytes = PREFACE.to_vec();
        write_headers(3, false, &encode(&fields), &mut bytes);
        write_headers(5, true, &encode(&fields[..1]), &mut bytes);
        for (flags, text) in [(PADDED, &b"\x02ab\0\0"[..]), (END_STREAM, b"c")] {
            let frame = Frame {
                length: text.len(),
                kind: DATA,
                flags,
                stream: 3,
            };
            frame.write(&mut bytes);
            bytes.extend_from_slice(text);
        }
        let read = message(&bytes, 3);
        assert_eq!(
            (read.blocks, &*read.body, read.ends),
            (vec![fields.clone()], &b"abc"[..], true)
        );
        let read = message(&bytes, 5);
        assert_eq!(
            (read.blocks[0].len(), read.body.is_empty(), read.ends),
            (1, true, true)
        );
        assert!(message(&bytes[..60], 3).blocks.is_empty());
    }
}
