//! The guest on the networks that there are: what it makes of servers, routers, links and
//! strangers. The tests are the other end of its card's link and speak Ethernet themselves, so they
//! need no network of the host's, and no rights.

mod dhcp;
mod flood;
mod ipv6;
mod link;
mod reach;
mod server;
mod tcp;
mod wire;
mod words;
