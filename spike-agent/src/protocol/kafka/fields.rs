//! Fields of messages, one after the other.

/// What is left of a message.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(|_| ())
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn short(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A number in groups of seven bits.
    fn varint(&mut self) -> Option<u32> {
        let mut value = 0;
        for place in 0..5 {
            let [byte] = *self.take(1)? else {
                return None;
            };
            value |= u32::from(byte & 0x7f).checked_shl(7 * place)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A string, which may be null.
    pub(super) fn nullable(&mut self) -> Option<Option<&'a [u8]>> {
        match self.short()? {
            u16::MAX => Some(None),
            size if size > i16::MAX as u16 => None,
            size => self.take(usize::from(size)).map(Some),
        }
    }

    /// A string as of that kind of version; empty if it is null.
    pub(super) fn string(&mut self, flexible: bool) -> Option<&'a [u8]> {
        if !flexible {
            return self.nullable().map(Option::unwrap_or_default);
        }
        match self.varint()? {
            0 => Some(&[]),
            size => self.take(size as usize - 1),
        }
    }

    /// The count of an array as of that kind of version; none if it is null.
    pub(super) fn count(&mut self, flexible: bool) -> Option<u32> {
        if !flexible {
            return self.long().map(|count| if count == u32::MAX { 0 } else { count });
        }
        self.varint().map(|count| count.saturating_sub(1))
    }

    /// Fields that have a tag, if versions of that kind have them.
    pub(super) fn tagged(&mut self, flexible: bool) -> Option<()> {
        if !flexible {
            return Some(());
        }
        // There are a few at most.
        for _ in 0..self.varint()?.min(64) {
            self.varint()?;
            let size = self.varint()?;
            self.skip(size as usize)?;
        }
        Some(())
    }
}
