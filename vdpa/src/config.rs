//! The fields of configuration spaces, for who reads them, makes them up, or compares them: where
//! each is, how wide, and which feature brings it.
//!
//! Source: VIRTIO 1.2, 2.5, 5.1.4 and 5.2.4. The types of `virtio-spec` are views of mapped
//! registers, of which a device that is reached by operations has none.

pub mod blk;
pub mod net;

use core::marker::PhantomData;

use crate::Features;

/// A field whose value is a `T`.
#[derive(Debug)]
pub struct Field<T> {
    offset: u32,
    /// The bits of those features of which one is enough; 0, if the field is always there.
    features: u64,
    value: PhantomData<fn() -> T>,
}

/// What a field can hold: a little-endian number, or an Ethernet address.
pub trait Value: Copy {
    /// The bytes that are accessed at once (VIRTIO 1.2, 4.1.3.1).
    const WIDTH: u8;
    /// How many accesses there are.
    const COUNT: u8;

    /// The value of so many bytes.
    fn from_bytes(bytes: [u8; 8]) -> Self;

    /// The bytes of the value, and zeroes behind them.
    fn to_bytes(self) -> [u8; 8];
}

/// How a field is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldLayout {
    /// Where it starts.
    pub offset: u32,
    /// The bytes that are accessed at once.
    pub width: u8,
    /// How many accesses there are.
    pub count: u8,
    features: u64,
}

impl<T: Value> Field<T> {
    /// A field that is always there.
    const fn always(offset: u32) -> Self {
        Self::with(offset, 0)
    }

    /// A field that comes with one of these feature bits.
    const fn with(offset: u32, features: u64) -> Self {
        Self {
            offset,
            features,
            value: PhantomData,
        }
    }

    /// How the field is accessed.
    #[must_use]
    pub const fn layout(&self) -> FieldLayout {
        FieldLayout {
            offset: self.offset,
            width: T::WIDTH,
            count: T::COUNT,
            features: self.features,
        }
    }

    /// Reads the field, with something that reads bytes from an offset on.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read<E>(&self, read: impl FnOnce(u32, &mut [u8]) -> Result<(), E>) -> Result<T, E> {
        let mut bytes = [0; 8];
        read(self.offset, &mut bytes[..self.layout().len()])?;
        Ok(T::from_bytes(bytes))
    }

    /// The same of a device that offers these features; `None`, if it has no such field.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read_if<E>(
        &self,
        offered: Features,
        read: impl FnOnce(u32, &mut [u8]) -> Result<(), E>,
    ) -> Result<Option<T>, E> {
        match self.layout().exists(offered) {
            true => self.read(read).map(Some),
            false => Ok(None),
        }
    }

    /// Writes the field into a configuration space that has it.
    pub fn put(&self, space: &mut [u8], value: T) {
        let len = self.layout().len();
        space[self.offset as usize..][..len].copy_from_slice(&value.to_bytes()[..len]);
    }
}

impl FieldLayout {
    /// Whether a device that offers these features has the field.
    #[must_use]
    pub fn exists(&self, offered: Features) -> bool {
        self.features == 0 || offered.bits() & u128::from(self.features) != 0
    }

    /// How many bytes the field has, which are at most 8.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no field is empty")]
    pub const fn len(&self) -> usize {
        self.width as usize * self.count as usize
    }
}

macro_rules! number {
    ($($number:ty: $width:literal times $count:literal),*) => {$(
        impl Value for $number {
            const WIDTH: u8 = $width;
            const COUNT: u8 = $count;

            fn from_bytes(bytes: [u8; 8]) -> Self {
                u64::from_le_bytes(bytes) as Self
            }

            fn to_bytes(self) -> [u8; 8] {
                u64::from(self).to_le_bytes()
            }
        }
    )*};
}

// Of 64 bits each half is read for itself.
number!(u8: 1 times 1, u16: 2 times 1, u32: 4 times 1, u64: 4 times 2);

impl Value for [u8; 6] {
    const WIDTH: u8 = 1;
    const COUNT: u8 = 6;

    fn from_bytes([a, b, c, d, e, f, _, _]: [u8; 8]) -> Self {
        [a, b, c, d, e, f]
    }

    fn to_bytes(self) -> [u8; 8] {
        let [a, b, c, d, e, f] = self;
        [a, b, c, d, e, f, 0, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn what_is_put_is_read_in_the_fields_own_bytes() {
        let mut space = [0xff; blk::SIZE];
        blk::CAPACITY.put(&mut space, 0x1122_3344_5566_7788);
        blk::NUM_QUEUES.put(&mut space, 0x0102);
        blk::WRITEBACK.put(&mut space, 7);
        assert_eq!(space[..8], [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        assert_eq!(space[31..37], [0xff, 7, 0xff, 2, 1, 0xff]);
        let read = |at: u32, bytes: &mut [u8]| {
            bytes.copy_from_slice(&space[at as usize..][..bytes.len()]);
            Ok::<_, ()>(())
        };
        assert_eq!(blk::CAPACITY.read(read), Ok(0x1122_3344_5566_7788));
        assert_eq!(blk::NUM_QUEUES.read(read), Ok(0x0102));
        assert_eq!(blk::WRITEBACK.read(read), Ok(7));
        assert_eq!(blk::SEG_MAX.read_if(Features::EMPTY, read), Ok(None));
    }

    #[test]
    fn fields_are_in_order_apart_and_aligned() {
        for fields in [net::FIELDS, blk::FIELDS] {
            for field in fields.iter() {
                assert!(field.offset.is_multiple_of(field.width.into()), "{field:?}");
            }
            let ends: Vec<_> = fields
                .iter()
                .map(|field| (field.offset, field.offset + field.len() as u32))
                .collect();
            assert!(ends.is_sorted_by(|a, b| a.1 <= b.0), "{ends:?}");
        }
    }

    #[test]
    fn a_field_comes_with_one_of_its_features() {
        use virtio::net::F;
        let pairs = net::MAX_VIRTQUEUE_PAIRS.layout();
        assert!(pairs.exists(F::MQ.into()) && pairs.exists(F::RSS.into()));
        assert!(!pairs.exists((F::MAC | F::MTU).into()));
        assert!(net::MTU.layout().exists(F::MTU.into()));
        assert!(blk::CAPACITY.layout().exists(Features::EMPTY));
    }
}
