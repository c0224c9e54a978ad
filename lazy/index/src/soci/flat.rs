//! Just enough of FlatBuffers to read one: tables, numbers, strings, vectors, every step within the buffer.
//!
//! Source: the FlatBuffers internals document ("Tables", "Strings", "Vectors"). A table begins with the distance back to
//! its vtable: 16-bit sizes of both, then for each field its place in the table, 0 if it is absent. Strings and vectors are
//! reached by a distance forward and begin with their count.
//!
//! A buffer can make many references lead to one place. Whoever copies what they lead to has to count.

/// A table in a buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'a> {
    bytes: &'a [u8],
    at: usize,
    vtable: usize,
    vtable_bytes: usize,
}

impl<'a> Table<'a> {
    /// The root table of `bytes`.
    pub(super) fn root(bytes: &'a [u8]) -> Option<Self> {
        Self::at(bytes, u32_at(bytes, 0)? as usize)
    }

    fn at(bytes: &'a [u8], at: usize) -> Option<Self> {
        let back = i64::from(u32_at(bytes, at)?.cast_signed());
        let vtable = usize::try_from(i64::try_from(at).ok()?.checked_sub(back)?).ok()?;
        let vtable_bytes = usize::from(u16_at(bytes, vtable)?);
        bytes.get(vtable..vtable.checked_add(vtable_bytes)?)?;
        Some(Self { bytes, at, vtable, vtable_bytes })
    }

    /// Where field number `field` lies; `None` if it is absent.
    fn field(&self, field: usize) -> Option<usize> {
        let slot = 4 + 2 * field;
        if slot + 2 > self.vtable_bytes {
            return None;
        }
        match u16_at(self.bytes, self.vtable + slot)? {
            0 => None,
            place => self.at.checked_add(usize::from(place)),
        }
    }

    /// A field of 8 bits; 0 if it is absent.
    pub(super) fn u8(&self, field: usize) -> Option<u8> {
        self.field(field).map_or(Some(0), |at| self.bytes.get(at).copied())
    }

    /// A field of 32 bits; 0 if it is absent.
    pub(super) fn u32(&self, field: usize) -> Option<u32> {
        self.field(field).map_or(Some(0), |at| u32_at(self.bytes, at))
    }

    /// A signed field of 64 bits; 0 if it is absent.
    pub(super) fn i64(&self, field: usize) -> Option<i64> {
        self.field(field).map_or(Some(0), |at| {
            let bytes = self.bytes.get(at..at.checked_add(8)?)?;
            bytes.try_into().ok().map(i64::from_le_bytes)
        })
    }

    /// A table in a field.
    pub(super) fn table(&self, field: usize) -> Option<Self> {
        Self::at(self.bytes, forward(self.bytes, self.field(field)?)?)
    }

    /// A string or a vector of bytes in a field; empty if it is absent.
    pub(super) fn bytes(&self, field: usize) -> Option<&'a [u8]> {
        let Some(at) = self.field(field) else { return Some(&[]) };
        counted(self.bytes, forward(self.bytes, at)?, 1)
    }

    /// A vector of tables or strings in a field; empty if it is absent.
    pub(super) fn list(&self, field: usize) -> Option<List<'a>> {
        let Some(at) = self.field(field) else { return Some(List { bytes: self.bytes, at: 0, count: 0 }) };
        let at = forward(self.bytes, at)?;
        let count = counted(self.bytes, at, 4)?.len() / 4;
        Some(List { bytes: self.bytes, at: at + 4, count })
    }
}

/// A vector of references.
#[derive(Debug, Clone, Copy)]
pub(super) struct List<'a> {
    bytes: &'a [u8],
    at: usize,
    count: usize,
}

impl<'a> List<'a> {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    fn place(&self, number: usize) -> Option<usize> {
        (number < self.count).then(|| forward(self.bytes, self.at + 4 * number))?
    }

    pub(super) fn table(&self, number: usize) -> Option<Table<'a>> {
        Table::at(self.bytes, self.place(number)?)
    }

    pub(super) fn string(&self, number: usize) -> Option<&'a [u8]> {
        counted(self.bytes, self.place(number)?, 1)
    }
}

/// The place a reference at `at` leads to.
fn forward(bytes: &[u8], at: usize) -> Option<usize> {
    at.checked_add(u32_at(bytes, at)? as usize)
}

/// What a vector at `at` holds, each item of so many bytes.
fn counted(bytes: &[u8], at: usize, item_bytes: usize) -> Option<&[u8]> {
    let length = (u32_at(bytes, at)? as usize).checked_mul(item_bytes)?;
    let start = at.checked_add(4)?;
    bytes.get(start..start.checked_add(length)?)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}
