//! Volumes with one field after the other changed to what it must not be.

use hadris_fat_raw::{Geometry, RootLocation, parse_boot};
use web::volume::VolumeError;

use crate::device::Device;
use crate::visitor::{Files, visit};
use crate::volumes::{KINDS, files, volume};

/// A volume, and what of it is changed and put back.
struct Patient {
    device: Device,
    geometry: Geometry,
    images: u32,
}

/// A field: its place, and how many bytes it has.
type Field = (usize, usize);

impl Patient {
    fn new(image: Vec<u8>) -> Self {
        let geometry = parse_boot(image[..512].try_into().unwrap()).unwrap();
        let device = Device::new(image, 512);
        assert_eq!(visit(&device, None).unwrap(), files());
        Self {
            device,
            geometry,
            images: 0,
        }
    }

    fn root(&self) -> usize {
        let start = match self.geometry.root() {
            RootLocation::Fixed { start, .. } => Some(start),
            RootLocation::Cluster(cluster) => self.geometry.cluster_offset(cluster),
        };
        usize::try_from(start.unwrap()).unwrap()
    }

    /// Visits the volume with these bytes in place of its own.
    fn with(&mut self, changes: &[(usize, Vec<u8>)]) -> Result<Files, VolumeError> {
        let swap = |(at, bytes): &(usize, Vec<u8>)| {
            let mut image = self.device.image.borrow_mut();
            let place = &mut image[*at..*at + bytes.len()];
            let old = place.to_vec();
            place.copy_from_slice(bytes);
            (*at, old)
        };
        let mut old: Vec<_> = changes.iter().map(swap).collect();
        let seen = visit(&self.device, None);
        old.reverse();
        let _: Vec<_> = old.iter().map(swap).collect();
        self.images += 1;
        seen
    }

    /// Visits the volume once with each odd value in the field.
    fn each_value(
        &mut self,
        (at, length): Field,
        mut seen: impl FnMut(&[u8], Result<Files, VolumeError>),
    ) {
        let old = self.number((at, length));
        let mut values = vec![
            0,
            1,
            2,
            3,
            5,
            0x7f,
            0x80,
            0xff,
            0x1000,
            u32::MAX,
            u32::MAX >> 1,
            0x0fff_fff7,
        ];
        values.extend([
            old.wrapping_sub(1),
            old.wrapping_add(1),
            old << 1,
            old >> 1,
            !old,
        ]);
        let mut values: Vec<_> = values
            .iter()
            .map(|value| value.to_le_bytes()[..length].to_vec())
            .collect();
        values.sort();
        values.dedup();
        for value in values {
            let files = self.with(&[(at, value.clone())]);
            seen(&value, files);
        }
    }

    fn number(&self, (at, length): Field) -> u32 {
        let image = self.device.image.borrow();
        let mut bytes = [0; 4];
        bytes[..length].copy_from_slice(&image[at..at + length]);
        u32::from_le_bytes(bytes)
    }
}

/// The place in the image where the slot of this short name is.
fn slot(patient: &Patient, short: &[u8; 11]) -> usize {
    let image = patient.device.image.borrow();
    let found = image.windows(11).position(|bytes| bytes == short);
    found.unwrap()
}

/// The first names in the paths of what was lost or is no longer what it was.
fn lost(seen: &Files) -> Vec<String> {
    let all = files();
    let lost = all
        .iter()
        .filter(|(path, bytes)| seen.get(*path) != Some(bytes));
    let mut names: Vec<_> = lost
        .map(|(path, _)| path.split('/').nth(1).unwrap().to_string())
        .collect();
    names.dedup();
    names
}

#[test]
fn every_field_of_the_boot_sector_may_say_anything() {
    // BPB_BytsPerSec to BPB_TotSec32, then BPB_FATSz32 to BPB_BkBootSec of FAT32, and the
    // signature.
    let common = [
        (11, 2),
        (13, 1),
        (14, 2),
        (16, 1),
        (17, 2),
        (19, 2),
        (21, 1),
        (22, 2),
        (24, 2),
        (28, 4),
        (32, 4),
    ];
    let of_fat32 = [
        (36, 4),
        (40, 2),
        (42, 2),
        (44, 4),
        (48, 2),
        (50, 2),
        (510, 2),
    ];
    for (kind, size) in KINDS {
        let mut patient = Patient::new(volume(kind, size));
        for field in common.into_iter().chain(of_fat32) {
            patient.each_value(field, |value, seen| {
                let plain = matches!(
                    seen,
                    Err(VolumeError::Damaged | VolumeError::NoFileSystem) | Ok(_)
                );
                assert!(plain, "{kind:?} {field:?} {value:x?}: {seen:?}");
            });
        }
        assert!(patient.images > 100);
    }
}

#[test]
fn nonsense_in_the_boot_sector_is_no_volume() {
    for (kind, size) in KINDS {
        let mut patient = Patient::new(volume(kind, size));
        for (field, value) in [
            ("BPB_BytsPerSec", (11, vec![0, 0])),
            ("BPB_BytsPerSec", (11, vec![0, 3])),
            ("BPB_SecPerClus", (13, vec![0])),
            ("BPB_SecPerClus", (13, vec![3])),
            ("BPB_RsvdSecCnt", (14, vec![0, 0])),
            ("BPB_NumFATs", (16, vec![0])),
            ("BPB_TotSec", (19, vec![0; 2])),
            ("BPB_TotSec32", (32, vec![0xff; 4])),
            ("signature", (510, vec![0; 2])),
        ] {
            let mut changes = vec![value];
            match field {
                "BPB_TotSec" => changes.push((32, vec![0; 4])),
                // It counts where BPB_TotSec16 is 0.
                "BPB_TotSec32" => changes.push((19, vec![0; 2])),
                _ => {}
            }
            assert!(
                patient.with(&changes).is_err(),
                "{kind:?} {field} {changes:x?}"
            );
        }
    }
}

#[test]
fn a_volume_that_is_cut_off_is_damaged() {
    for (kind, size) in KINDS {
        let image = volume(kind, size);
        let whole = image.len();
        let device = Device::new(image, 512);
        for length in [whole - 512, whole / 2, 65_536, 1024, 513, 512, 511, 1, 0] {
            device.image.borrow_mut().truncate(length);
            let seen = visit(&device, None).unwrap_err();
            let expected = [VolumeError::Damaged, VolumeError::NoFileSystem];
            assert!(expected.contains(&seen), "{kind:?} {length}: {seen:?}");
        }
    }
}

#[test]
fn one_damaged_entry_loses_itself_and_nothing_else() {
    for (kind, size) in KINDS {
        let mut patient = Patient::new(volume(kind, size));
        let root = patient.root();
        for index in 0..10 {
            let at = root + index * 32;
            if patient.device.image.borrow()[at] == 0 {
                break;
            }
            // Each byte of the name, the attributes, both halves of the cluster and the size; or
            // what a slot of a long name has there.
            let name = (0..11).map(|byte| (at + byte, 1));
            let fields = name.chain([
                (at + 11, 1),
                (at + 12, 1),
                (at + 13, 1),
                (at + 20, 2),
                (at + 26, 2),
                (at + 28, 4),
            ]);
            for field in fields {
                patient.each_value(field, |value, seen| {
                    // An entry that starts with 0 ends its directory (section 6.1).
                    if field.0 == at && value[0] == 0 {
                        return;
                    }
                    let lost = lost(&seen.unwrap());
                    assert!(
                        lost.len() <= 1,
                        "{kind:?} slot {index} {field:?} {value:x?}: {lost:?}"
                    );
                });
            }
        }
        assert!(patient.images > 500);
    }
}

#[test]
fn every_link_of_a_chain_may_lead_anywhere() {
    for (kind, size) in KINDS {
        let mut patient = Patient::new(volume(kind, size));
        let table = usize::try_from(patient.geometry.fat_start()).unwrap();
        let width = if size > 16 << 20 { 4 } else { 2 };
        for entry in 0..24 {
            patient.each_value((table + entry * width, width), |value, seen| {
                let seen = seen.unwrap();
                let all = files();
                for (path, bytes) in &seen {
                    // What is sent has its length, and what no longer is what it was took over
                    // another's clusters.
                    let length = all.get(path).map(Vec::len);
                    assert_eq!(
                        length,
                        Some(bytes.len()),
                        "{kind:?} {entry} {value:x?}: {path}"
                    );
                }
            });
        }
    }
}

#[test]
fn files_on_the_same_clusters_are_both_served() {
    for (kind, size) in KINDS {
        let mut patient = Patient::new(volume(kind, size));
        let (one, two) = (
            slot(&patient, b"README  TXT"),
            slot(&patient, b"SEED    BIN"),
        );
        let cluster = patient.device.image.borrow()[one + 26..one + 28].to_vec();
        let seen = patient.with(&[(two + 26, cluster)]).unwrap();
        assert_eq!(seen["/Zoo/Deeper/SEED.BIN"], files()["/README.TXT"][..513]);
        assert_eq!(seen["/README.TXT"], files()["/README.TXT"]);
    }
}

#[test]
fn a_directory_full_of_deleted_or_nameless_entries_is_read_to_its_end() {
    let (kind, size) = KINDS[2];
    let mut patient = Patient::new(volume(kind, size));
    let cluster_size = usize::try_from(patient.geometry.cluster_size()).unwrap();
    let zoo = slot(&patient, b"ZOO        ");
    // A chain of clusters behind the files, of as many slots as a directory may have and one more.
    let first = 2000_u32;
    let clusters = u32::try_from(65_536 * 32 / cluster_size).unwrap() + 1;
    let table = usize::try_from(patient.geometry.fat_start()).unwrap();
    let links: Vec<u8> = (first..first + clusters)
        .flat_map(|at| (at + 1).to_le_bytes())
        .collect();
    let data = usize::try_from(patient.geometry.cluster_offset(first).unwrap()).unwrap();
    for fill in [0xe5, b' ', 0x0f] {
        let slots = vec![fill; clusters as usize * cluster_size];
        let seen = patient.with(&[
            (table + first as usize * 4, links.clone()),
            (data, slots),
            (zoo + 20, vec![0, 0]),
            (zoo + 26, first.to_le_bytes()[..2].to_vec()),
        ]);
        assert_eq!(lost(&seen.unwrap()), ["Zoo"], "{fill:x}");
    }
}

#[test]
fn bytes_changed_by_chance_do_no_harm() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        // xorshift64, from a fixed seed.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 11).unwrap() % below
    };
    for (kind, size) in KINDS {
        let mut patient = Patient::new(volume(kind, size));
        let (root, table) = (
            patient.root(),
            usize::try_from(patient.geometry.fat_start()).unwrap(),
        );
        for _ in 0..200 {
            let count = 1 + next(12);
            let changes: Vec<_> = (0..count)
                .map(|_| {
                    let at = match next(4) {
                        0 => next(90),
                        1 => table + next(128),
                        2 => root + next(512),
                        _ => root + next(8192),
                    };
                    let byte = u8::try_from(next(256)).unwrap();
                    (at, vec![byte])
                })
                .collect();
            // Either answer will do: the visitor has looked at the rest.
            let _ = patient.with(&changes);
        }
    }
}
