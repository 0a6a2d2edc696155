//! A network device that gives back what it is sent (VIRTIO 1.2, 5.1).

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use super::Service;
use super::bench::{Bench, Format};
use super::rig::{Answer, Rig};
use super::verdict::{Stop, Verdict, checks, ensure, equal, skip_unless};

checks! {
    "split: frames of every length come back" => split,
    "packed: frames of every length come back" => packed,
    "many frames come back, in order, past the end of the ring" => many,
}

/// The header of a frame with VERSION_1 (VIRTIO 1.2, 5.1.6).
const HEADER_LEN: usize = 12;
/// Room for the largest frame and its header.
pub(super) const BUFFER_LEN: usize = HEADER_LEN + 1514;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// A header without offloads, and a frame to everybody that carries a number.
pub(super) fn sent(number: u8) -> Vec<u8> {
    frame(number, 60)
}

fn frame(number: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_LEN];
    bytes.extend([0xff; 6]);
    bytes.extend([2, 0, 0, 0, 0, 1]);
    // An EtherType for experiments (IEEE 802, table 3).
    bytes.extend([0x88, 0xb5]);
    bytes
        .extend((bytes.len()..HEADER_LEN + len).map(|at| number.wrapping_add(at.to_le_bytes()[0])));
    bytes
}

/// Whether what was received is the frame of this number.
pub(super) fn check_received(bench: &Bench<'_>, answer: &Answer, number: u8) -> Verdict {
    check_frame(bench, answer, &sent(number))
}

fn check_frame(bench: &Bench<'_>, answer: &Answer, sent: &[u8]) -> Verdict {
    equal(
        "the length of the received frame",
        &answer.written,
        &sent.len(),
    )?;
    let same = answer.bytes.get(HEADER_LEN..sent.len()) == sent.get(HEADER_LEN..);
    ensure(same, "the received frame is not the one that was sent")?;
    if !bench.subject.sets_num_buffers() {
        return Ok(());
    }
    let count = answer.bytes.get(10..HEADER_LEN);
    equal("num_buffers", &count, &Some(&[1, 0][..]))
}

fn needs_loopback(bench: &Bench<'_>) -> Verdict {
    let loopback = bench.subject.service() == Service::NetLoopback;
    skip_unless(loopback, "it is no network device that loops")
}

async fn split(bench: &Bench<'_>) -> Verdict {
    needs_loopback(bench)?;
    lengths(bench, Format::Split).await
}

async fn packed(bench: &Bench<'_>) -> Verdict {
    needs_loopback(bench)?;
    bench.needs_packed()?;
    lengths(bench, Format::Packed).await
}

async fn lengths(bench: &Bench<'_>, format: Format) -> Verdict {
    let mut rig = Rig::start(bench, format).await?;
    for (number, len) in (0..).zip([60, 61, 64, 128, 590, 1513, 1514]) {
        let bytes = frame(number, len);
        send(&mut rig, &bytes)?;
        let answer = rig.lines[RECEIVE].answer(bench).await?;
        check_frame(bench, &answer, &bytes)?;
        let sent = rig.lines[TRANSMIT].answer(bench).await?;
        equal(
            "what was written of a frame that was sent",
            &sent.written,
            &0,
        )?;
    }
    rig.stop(bench).await
}

fn send(rig: &mut Rig, bytes: &[u8]) -> Result<(), Stop> {
    let Rig { lines, dma, .. } = rig;
    lines[RECEIVE].offer(dma, &[], BUFFER_LEN)?;
    lines[RECEIVE].kick();
    lines[TRANSMIT].offer(dma, bytes, 0)?;
    lines[TRANSMIT].kick();
    Ok(())
}

async fn many(bench: &Bench<'_>) -> Verdict {
    needs_loopback(bench)?;
    for format in bench.formats()? {
        let mut rig = Rig::start(bench, *format).await?;
        let burst = u8::try_from(rig.lines[TRANSMIT].ring.size().min(4)).unwrap_or(1);
        for round in 0..8 {
            let numbers = (0..burst).map(|number| round * burst + number);
            for number in numbers.clone() {
                send(&mut rig, &sent(number))?;
            }
            for number in numbers {
                let answer = rig.lines[RECEIVE].answer(bench).await?;
                check_received(bench, &answer, number)?;
                rig.lines[TRANSMIT].answer(bench).await?;
            }
        }
        let surplus = rig.lines[RECEIVE].take()?.is_some();
        ensure(!surplus, format!("{format:?}: a frame came back twice"))?;
        rig.stop(bench).await?;
    }
    Ok(())
}
