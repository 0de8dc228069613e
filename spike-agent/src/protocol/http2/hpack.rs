//! The names of a header block (HPACK, RFC 7541), as far as calls need them.
//!
//! The readers that there are fail on a table whose beginning they haven't seen. This one knows a field of such a table
//! as unknown: positions count back from the newest field, so what came after a gap is read right again.

use std::collections::VecDeque;

use octets::Octets;

/// Fields of the static table (RFC 7541 appendix A).
const STATIC_FIELDS: u64 = 61;
/// Size of a dynamic table until its encoder says otherwise, in the octets of RFC 7541 section 4.1.
const TABLE_SIZE: usize = 4096;
/// Encoders may have larger tables; their oldest fields are then unknown here.
const TABLE_LIMIT: usize = 64 * 1024;
/// What RFC 7541 section 4.1 adds to the size of each field.
const FIELD_COST: usize = 32;
/// Longest name that is read; all names of interest are shorter.
const NAME_LIMIT: usize = 32;
/// Longest value that is kept in the table; a longer one is unknown when it is referred to.
const KEPT_LIMIT: usize = 512;

/// A field by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Authority,
    Method,
    Path,
    Scheme,
    Status,
    ContentType,
    GrpcStatus,
    Traceparent,
    /// Any other.
    Other,
    /// In the table since before a gap.
    Unknown,
}

/// The fields of a block that calls need.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) authority: Option<Vec<u8>>,
    pub(super) method: Option<Vec<u8>>,
    pub(super) path: Option<Vec<u8>>,
    pub(super) status: Option<Vec<u8>>,
    pub(super) content_type: Option<Vec<u8>>,
    pub(super) grpc_status: Option<Vec<u8>>,
    pub(super) traceparent: Option<Vec<u8>>,
    /// Whether there are fields that only a request has.
    pub(super) asks: bool,
    /// Whether there are fields that could not be told.
    pub(super) gaps: bool,
}

/// A dynamic table, of the blocks of one direction.
pub(super) struct Table {
    /// The newest first.
    fields: VecDeque<Field>,
    size: usize,
    limit: usize,
}

#[derive(Clone)]
struct Field {
    name: Name,
    /// Of names of interest alone.
    value: Option<Box<[u8]>>,
    /// At most what the encoder counts for it, as the lengths are those before Huffman decoding. So it is forgotten
    /// later than by the encoder, which then no longer refers to it.
    size: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            fields: VecDeque::new(),
            size: 0,
            limit: TABLE_SIZE,
        }
    }
}

impl Table {
    /// Blocks were lost: what they put into the table is unknown, and how much it was.
    pub(super) fn forget(&mut self) {
        self.fields.clear();
        self.size = 0;
    }

    /// Reads a whole block. From where it isn't HPACK, all is unknown.
    pub(super) fn read(&mut self, block: &[u8]) -> Fields {
        let mut fields = Fields::default();
        let mut block = Octets::with_slice(block);
        while block.cap() > 0 {
            if self.field(&mut block, &mut fields).is_none() {
                self.forget();
                fields.gaps = true;
                break;
            }
        }
        fields
    }

    /// Reads one representation (RFC 7541 section 6); none if it isn't one.
    fn field(&mut self, block: &mut Octets<'_>, fields: &mut Fields) -> Option<()> {
        let first = block.peek_u8().ok()?;
        let literal = match first {
            0x80.. => {
                let index = integer(block, 7)?;
                let field = self.get(index)?;
                fields.set(field.name, field.value.as_deref());
                return Some(());
            }
            0x40.. => integer(block, 6)?,
            0x20.. => {
                let size = usize::try_from(integer(block, 5)?).ok()?;
                self.limit = size.min(TABLE_LIMIT);
                self.evict();
                return Some(());
            }
            _ => integer(block, 4)?,
        };
        let (name, name_size) = match literal {
            0 => {
                let (name, size) = string(block, NAME_LIMIT)?;
                (name.map_or(Name::Other, |name| Name::of(&name)), size)
            }
            index => (self.get(index)?.name, 0),
        };
        let limit = if name.is_read() { usize::MAX } else { 0 };
        let (value, value_size) = string(block, limit)?;
        fields.set(name, value.as_deref());
        if first >= 0x40 {
            let kept = value.filter(|value| value.len() <= KEPT_LIMIT);
            self.insert(Field {
                name,
                value: kept.map(Vec::into_boxed_slice),
                size: name_size + value_size + FIELD_COST,
            });
        }
        Some(())
    }

    /// The field at an index of both tables; none if it can't be.
    fn get(&self, index: u64) -> Option<Field> {
        if index == 0 {
            return None;
        }
        let Some(dynamic) = index.checked_sub(STATIC_FIELDS + 1) else {
            return Some(fixed(index));
        };
        let field = usize::try_from(dynamic).ok().and_then(|at| self.fields.get(at));
        Some(field.cloned().unwrap_or(Field {
            name: Name::Unknown,
            value: None,
            size: 0,
        }))
    }

    fn insert(&mut self, field: Field) {
        self.size += field.size;
        self.fields.push_front(field);
        self.evict();
    }

    fn evict(&mut self) {
        while self.size > self.limit
            && let Some(oldest) = self.fields.pop_back()
        {
            self.size -= oldest.size;
        }
    }
}

impl Fields {
    fn set(&mut self, name: Name, value: Option<&[u8]>) {
        self.asks |= matches!(name, Name::Method | Name::Path | Name::Scheme | Name::Authority);
        let field = match name {
            Name::Authority => &mut self.authority,
            Name::Method => &mut self.method,
            Name::Path => &mut self.path,
            Name::Status => &mut self.status,
            Name::ContentType => &mut self.content_type,
            Name::GrpcStatus => &mut self.grpc_status,
            Name::Traceparent => &mut self.traceparent,
            Name::Unknown => return self.gaps = true,
            Name::Scheme | Name::Other => return,
        };
        self.gaps |= value.is_none();
        *field = value.map(<[u8]>::to_vec);
    }
}

impl Name {
    fn of(name: &[u8]) -> Self {
        match name {
            b":authority" => Self::Authority,
            b":method" => Self::Method,
            b":path" => Self::Path,
            b":scheme" => Self::Scheme,
            b":status" => Self::Status,
            b"content-type" => Self::ContentType,
            b"grpc-status" => Self::GrpcStatus,
            b"traceparent" => Self::Traceparent,
            _ => Self::Other,
        }
    }

    /// Whether its value is of interest.
    fn is_read(self) -> bool {
        !matches!(self, Self::Scheme | Self::Other | Self::Unknown)
    }
}

/// The field at an index of the static table.
fn fixed(index: u64) -> Field {
    let (name, value): (_, Option<&[u8]>) = match index {
        1 => (Name::Authority, Some(b"")),
        2 => (Name::Method, Some(b"GET")),
        3 => (Name::Method, Some(b"POST")),
        4 => (Name::Path, Some(b"/")),
        5 => (Name::Path, Some(b"/index.html")),
        6 | 7 => (Name::Scheme, None),
        8 => (Name::Status, Some(b"200")),
        9 => (Name::Status, Some(b"204")),
        10 => (Name::Status, Some(b"206")),
        11 => (Name::Status, Some(b"304")),
        12 => (Name::Status, Some(b"400")),
        13 => (Name::Status, Some(b"404")),
        14 => (Name::Status, Some(b"500")),
        31 => (Name::ContentType, Some(b"")),
        _ => (Name::Other, None),
    };
    Field {
        name,
        value: value.map(Into::into),
        size: 0,
    }
}

/// An integer with a prefix of so many bits (RFC 7541 section 5.1), below 2^32.
fn integer(block: &mut Octets<'_>, prefix: u32) -> Option<u64> {
    let mask = (1_u64 << prefix) - 1;
    let mut value = u64::from(block.get_u8().ok()?) & mask;
    if value < mask {
        return Some(value);
    }
    for shift in (0..=28).step_by(7) {
        let byte = u64::from(block.get_u8().ok()?);
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A string (RFC 7541 section 5.2), unless it is coded in more than `limit` bytes, and the number of those.
fn string(block: &mut Octets<'_>, limit: usize) -> Option<(Option<Vec<u8>>, usize)> {
    let huffman = block.peek_u8().ok()? & 0x80 != 0;
    let size = usize::try_from(integer(block, 7)?).ok()?;
    let mut coded = block.get_bytes(size).ok()?;
    if size > limit {
        return Some((None, size));
    }
    let text = if huffman {
        coded.get_huffman_decoded().ok()?
    } else {
        coded.to_vec()
    };
    Some((Some(text), size))
}

#[cfg(test)]
mod tests;
