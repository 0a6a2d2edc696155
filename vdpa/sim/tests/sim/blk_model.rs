//! Any sequence of requests leaves the disk as it leaves an array of bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::disk::{
    DISCARD, IN, IOERR, OK, OUT, SECTOR, SECTORS, WRITE_ZEROES, drive, header, ram_disk, range,
};
use crate::world::{Rig, Variant, World};

const LEN: usize = SECTORS as usize * SECTOR;

#[derive(Clone, Debug)]
enum Request {
    Read {
        sector: u64,
        len: usize,
    },
    Write {
        sector: u64,
        len: usize,
        byte: u8,
        cut: usize,
    },
    Zero {
        kind: u32,
        ranges: Vec<(u64, u32)>,
    },
}

fn sector() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0..SECTORS,
        // The end of an extent of the disk, and of the disk.
        2 => prop_oneof![120..136u64, SECTORS - 4..SECTORS + 4],
        1 => any::<u64>(),
    ]
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => (0..20usize).prop_map(|sectors| sectors * SECTOR),
        1 => 0..3 * SECTOR,
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let write = (sector(), len(), any::<u8>(), 0..16 + SECTOR);
    prop_oneof![
        3 => (sector(), len()).prop_map(|(sector, len)| Request::Read { sector, len }),
        4 => write.prop_map(|(sector, len, byte, cut)| Request::Write { sector, len, byte, cut }),
        1 => (
            prop_oneof![Just(DISCARD), Just(WRITE_ZEROES)],
            vec((sector(), 0..300u32), 1..4),
        )
            .prop_map(|(kind, ranges)| Request::Zero { kind, ranges }),
    ]
}

/// The bytes of whole sectors that lie on the disk.
fn place(sector: u64, len: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(sector.checked_mul(SECTOR as u64)?).ok()?;
    let end = start.checked_add(len)?;
    (len.is_multiple_of(SECTOR) && end <= LEN).then_some(start..end)
}

fn serve(world: &World, rig: &mut Rig, model: &mut [u8], request: &Request) {
    match request {
        Request::Read { sector, len } => {
            let sizes: &[usize] = if *len == 0 { &[1] } else { &[*len, 1] };
            let answer = rig.exchange(world, 0, &[&header(IN, *sector)], sizes);
            match place(*sector, *len) {
                Some(place) => {
                    assert_eq!((answer.status(), answer.written), (OK, len + 1));
                    assert!(answer.bytes[..*len] == model[place]);
                }
                None => assert_eq!(answer.status(), IOERR),
            }
        }
        Request::Write {
            sector,
            len,
            byte,
            cut,
        } => {
            let mut bytes = header(OUT, *sector).to_vec();
            bytes.resize(16 + len, *byte);
            let (first, rest) = bytes.split_at((*cut).clamp(1, bytes.len() - 1));
            let answer = rig.exchange(world, 0, &[first, rest], &[1]);
            match place(*sector, *len) {
                Some(place) => {
                    assert_eq!(answer.status(), OK);
                    model[place].fill(*byte);
                }
                None => assert_eq!(answer.status(), IOERR),
            }
        }
        Request::Zero { kind, ranges } => {
            let list = ranges
                .iter()
                .flat_map(|(sector, sectors)| range(*sector, *sectors, 0));
            let status = rig.request(world, *kind, 0, &list.collect::<Vec<_>>());
            let places = ranges
                .iter()
                .map(|(sector, sectors)| place(*sector, *sectors as usize * SECTOR));
            match places.collect::<Option<Vec<_>>>() {
                Some(places) => {
                    assert_eq!(status, OK);
                    places.into_iter().for_each(|place| model[place].fill(0));
                }
                None => assert_eq!(status, IOERR),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 4))]

    #[test]
    fn a_disk_is_an_array_of_bytes(requests in vec(request(), 1..60), packed: bool) {
        let (world, disk) = (World::new(), ram_disk());
        let variant = Variant { packed, ..Variant::BEST };
        let mut rig = drive(&world, &disk, variant);
        let mut model = vec![0; LEN];
        for request in &requests {
            serve(&world, &mut rig, &mut model, request);
        }
        let mut bytes = vec![1; LEN];
        disk.read(0, &mut bytes).unwrap();
        prop_assert!(bytes == model);
        prop_assert_eq!(rig.count(0, "dma faults"), 0);
        let device = rig.stop(&world);
        world.unregister(&device);
    }
}
