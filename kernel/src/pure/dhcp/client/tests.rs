//! A client and its servers, message by message.

use alloc::vec::Vec;

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A client whose link is up, at the time 0.
fn client() -> Client {
    let mut client = Client::new(MAC, 1);
    client.set_link(Duration::ZERO, true);
    client
}

/// The message that the client sends at `now`.
fn sent(client: &mut Client, now: Duration) -> Datagram {
    match client.step(now) {
        Step::Send(datagram) => datagram,
        other => panic!("{other:?}"),
    }
}

fn kind_of(datagram: &Datagram) -> u8 {
    datagram.bytes[242]
}

fn waits_until(client: &mut Client, now: Duration) -> Option<Duration> {
    match client.step(now) {
        Step::Wait(until) => until,
        other => panic!("{other:?}"),
    }
}

fn answer(to: &Datagram, kind: u8, address: Ipv4Addr, lease: u32) -> Vec<u8> {
    let mut bytes = to.bytes[..240].to_vec();
    bytes[0] = 2;
    bytes[16..20].copy_from_slice(&address.octets());
    bytes.extend([option::KIND, 1, kind, option::SERVER, 4]);
    bytes.extend(SERVER.octets());
    bytes.extend([option::LEASE_TIME, 4]);
    bytes.extend(lease.to_be_bytes());
    bytes.extend([option::MASK, 4, 255, 255, 255, 0, option::END]);
    bytes
}

/// A client with a lease of so many seconds since the time 0.
fn bound(lease: u32) -> Client {
    let mut client = client();
    for kind in [kind::OFFER, kind::ACK] {
        let asked = sent(&mut client, Duration::ZERO);
        let answer = answer(&asked, kind, OWN, lease);
        client.receive(Duration::ZERO, SERVER, &answer);
    }
    assert_eq!(client.state, State::Bound);
    client
}

#[test]
fn an_offer_for_any_of_the_requests_is_taken_however_late() {
    let mut client = client();
    let first = sent(&mut client, Duration::ZERO);
    let mut now = Duration::ZERO;
    let mut waits = Vec::new();
    for _ in 0..7 {
        let next = waits_until(&mut client, now).unwrap();
        waits.push((next - now).as_secs());
        now = next;
        assert_eq!(kind_of(&sent(&mut client, now)), kind::DISCOVER);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 16, 16]);
    let offer = answer(&first, kind::OFFER, OWN, 60);
    assert_eq!(client.receive(now, SERVER, &offer), None);
    let request = sent(&mut client, now);
    assert_eq!(kind_of(&request), kind::REQUEST);
}

#[test]
fn nothing_is_asked_while_the_link_is_down() {
    let mut client = Client::new(MAC, 1);
    assert_eq!(client.step(seconds(5)), Step::Wait(None));
    client.set_link(seconds(6), true);
    assert_eq!(kind_of(&sent(&mut client, seconds(6))), kind::DISCOVER);
}

#[test]
fn an_offer_that_is_not_confirmed_is_let_go() {
    let mut client = client();
    let asked = sent(&mut client, Duration::ZERO);
    client.receive(
        Duration::ZERO,
        SERVER,
        &answer(&asked, kind::OFFER, OWN, 60),
    );
    let mut now = Duration::ZERO;
    for _ in 0..CONFIRMATIONS {
        assert_eq!(kind_of(&sent(&mut client, now)), kind::REQUEST);
        now = waits_until(&mut client, now).unwrap();
    }
    assert_eq!(client.step(now), Step::Refused(Refusal::Silence));
    assert_eq!(kind_of(&sent(&mut client, now)), kind::DISCOVER);
}

#[test]
fn a_lease_is_renewed_at_half_its_time_then_by_anybody_and_then_it_ends() {
    let mut client = bound(800);
    assert_eq!(waits_until(&mut client, seconds(1)), Some(seconds(400)));
    let renewal = sent(&mut client, seconds(400));
    assert_eq!((renewal.source, renewal.destination), (OWN, SERVER));
    assert_eq!(renewal.bytes[12..16], OWN.octets());
    assert_eq!(waits_until(&mut client, seconds(400)), Some(seconds(550)));
    let rebinding = sent(&mut client, seconds(700));
    assert_eq!(rebinding.destination, Ipv4Addr::BROADCAST);
    assert_eq!(client.step(seconds(800)), Step::Lost(Loss::Expired));
    assert_eq!(kind_of(&sent(&mut client, seconds(800))), kind::DISCOVER);
}

#[test]
fn a_renewed_lease_is_no_news() {
    let mut client = bound(800);
    let renewal = sent(&mut client, seconds(400));
    let ack = answer(&renewal, kind::ACK, OWN, 800);
    let event = client.receive(seconds(401), SERVER, &ack);
    assert!(
        matches!(event, Some(Event::Bound { changed: false, .. })),
        "{event:?}"
    );
    assert_eq!(waits_until(&mut client, seconds(402)), Some(seconds(801)));
}

#[test]
fn a_lease_without_an_end_has_none() {
    let mut client = bound(u32::MAX);
    assert_eq!(waits_until(&mut client, seconds(1 << 40)), None);
}

#[test]
fn after_the_link_was_down_the_lease_is_confirmed_and_holds_meanwhile() {
    let mut client = bound(800);
    client.set_link(seconds(10), false);
    assert_eq!(waits_until(&mut client, seconds(11)), Some(seconds(800)));
    client.set_link(seconds(12), true);
    let mut now = seconds(12);
    for _ in 0..CONFIRMATIONS {
        let request = sent(&mut client, now);
        assert_eq!(kind_of(&request), kind::REQUEST);
        assert_eq!(request.source, Ipv4Addr::UNSPECIFIED);
        now = waits_until(&mut client, now).unwrap();
    }
    assert_eq!(
        waits_until(&mut client, now),
        Some(seconds(400)),
        "it holds"
    );
}

#[test]
fn a_link_that_stays_down_does_not_prolong_a_lease() {
    let mut client = bound(800);
    client.set_link(seconds(10), false);
    assert_eq!(client.step(seconds(800)), Step::Lost(Loss::Expired));
    assert_eq!(client.step(seconds(801)), Step::Wait(None));
}

#[test]
fn an_address_that_is_declined_is_not_asked_for_at_once() {
    let mut client = bound(800);
    let decline = client.decline(seconds(1)).unwrap();
    assert_eq!(kind_of(&decline), kind::DECLINE);
    assert_eq!(waits_until(&mut client, seconds(1)), Some(seconds(11)));
    assert!(client.decline(seconds(2)).is_none());
}

#[test]
fn servers_that_always_say_no_are_asked_less_and_less() {
    let mut client = client();
    let mut now = Duration::ZERO;
    let mut waits = Vec::new();
    for _ in 0..6 {
        let asked = sent(&mut client, now);
        client.receive(now, SERVER, &answer(&asked, kind::OFFER, OWN, 60));
        let asked = sent(&mut client, now);
        client.receive(now, SERVER, &answer(&asked, kind::NAK, OWN, 60));
        let next = waits_until(&mut client, now).unwrap();
        waits.push((next - now).as_secs());
        now = next;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 16]);
}

#[test]
fn no_message_stops_or_hurries_the_client() {
    // Answers with every byte changed to some values, in every state.
    for lease in [0, 1, 60, u32::MAX] {
        for place in 0..262 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut client = client();
                let mut now = Duration::ZERO;
                for step in 0..40 {
                    match client.step(now) {
                        Step::Send(datagram) => {
                            let kind = [kind::OFFER, kind::ACK, kind::NAK][step % 3];
                            let mut bytes = answer(&datagram, kind, OWN, lease);
                            bytes[place] = value;
                            client.receive(now, SERVER, &bytes);
                        }
                        Step::Wait(None) => break,
                        Step::Wait(Some(until)) => {
                            assert!(until > now);
                            now = until;
                        }
                        Step::Lost(_) | Step::Refused(_) => {}
                    }
                }
            }
        }
    }
}
