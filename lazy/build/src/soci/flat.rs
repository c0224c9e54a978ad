//! Just enough of FlatBuffers to write one: tables, numbers, strings, vectors.
//!
//! Source: the FlatBuffers internals document. A buffer is built from its end, since references lead forward only: what is
//! referred to is written before who refers to it. Bytes are kept reversed until [`Builder::finish`].

/// Where something was written: its distance from the end of the buffer, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

/// The value of a field. Fields with their schema's default are left out by the caller.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    Byte(u8),
    Int(i32),
    Uint(u32),
    Long(i64),
    Reference(Place),
}

/// A buffer under way.
#[derive(Debug, Default)]
pub(super) struct Builder {
    reversed: Vec<u8>,
}

/// Widest value there is, in bytes: what the start of the buffer is aligned to.
const ALIGNMENT: usize = 8;

impl Builder {
    fn bytes(&mut self, bytes: &[u8]) {
        self.reversed.extend(bytes.iter().rev());
    }

    /// Pads so that a value of `alignment` lies right once `more` bytes are written.
    fn align(&mut self, alignment: usize, more: usize) {
        let end = self.reversed.len() + more;
        self.reversed.resize(end.next_multiple_of(alignment) - more, 0);
    }

    fn place(&self) -> Place {
        Place(self.reversed.len())
    }

    pub(super) fn string(&mut self, text: &[u8]) -> Place {
        self.align(4, text.len() + 1);
        self.bytes(&[0]);
        self.bytes(text);
        self.count(text.len())
    }

    pub(super) fn vector_of_bytes(&mut self, bytes: &[u8]) -> Place {
        self.align(4, bytes.len());
        self.bytes(bytes);
        self.count(bytes.len())
    }

    pub(super) fn vector(&mut self, places: &[Place]) -> Place {
        self.align(4, 4 * places.len());
        for place in places.iter().rev() {
            self.reference(*place);
        }
        self.count(places.len())
    }

    fn count(&mut self, count: usize) -> Place {
        let count = u32::try_from(count).expect("a zTOC is smaller than 4 GiB");
        self.bytes(&count.to_le_bytes());
        self.place()
    }

    fn reference(&mut self, to: Place) {
        let here = self.reversed.len() + 4;
        let distance = u32::try_from(here - to.0).expect("a zTOC is smaller than 4 GiB");
        self.bytes(&distance.to_le_bytes());
    }

    /// A table of fields, each with its number in the schema.
    pub(super) fn table(&mut self, fields: &[(usize, Value)]) -> Place {
        let before = self.reversed.len();
        let slots = fields.iter().map(|(slot, _)| slot + 1).max().unwrap_or(0);
        let mut places = vec![0; slots];
        for (slot, value) in fields {
            self.value(*value);
            places[*slot] = self.reversed.len();
        }
        self.align(4, 4);
        self.bytes(&[0; 4]);
        let table = self.reversed.len();
        let small =
            |distance: usize| u16::try_from(distance).expect("a table of some 14 fields").to_le_bytes();
        for place in places.iter().rev() {
            self.bytes(&if *place == 0 { [0; 2] } else { small(table - place) });
        }
        self.bytes(&small(table - before));
        self.bytes(&small(4 + 2 * slots));
        let vtable = i32::try_from(self.reversed.len() - table).expect("a vtable is small");
        for (at, byte) in vtable.to_le_bytes().into_iter().enumerate() {
            self.reversed[table - 1 - at] = byte;
        }
        Place(table)
    }

    fn value(&mut self, value: Value) {
        match value {
            Value::Byte(value) => self.bytes(&[value]),
            Value::Int(value) => self.number(&value.to_le_bytes()),
            Value::Uint(value) => self.number(&value.to_le_bytes()),
            Value::Long(value) => self.number(&value.to_le_bytes()),
            Value::Reference(place) => {
                self.align(4, 4);
                self.reference(place);
            }
        }
    }

    fn number(&mut self, bytes: &[u8]) {
        self.align(bytes.len(), bytes.len());
        self.bytes(bytes);
    }

    /// The whole buffer, whose root is `root`.
    pub(super) fn finish(mut self, root: Place) -> Vec<u8> {
        self.align(ALIGNMENT, 4);
        self.reference(root);
        self.reversed.reverse();
        self.reversed
    }
}
