//! Every lie is found out, by the check that is there for it.

use vdpa::conformance::Outcome;

use crate::fake::report;
use crate::liar::{Liar, Lie};

#[track_caller]
fn found_out(lie: Lie, by: &str) {
    let liar = Liar::new(lie);
    let report = report(&liar.fake.platform, &liar);
    let check = report.checks().iter().find(|check| check.name == by);
    let outcome = &check.expect("the check exists").outcome;
    assert!(
        matches!(outcome, Outcome::Failed(_)),
        "{lie:?} is not found out by {by:?}: {outcome:?}\n{report}"
    );
}

#[test]
fn a_device_that_lies_about_itself_is_found_out() {
    let identity = "its type, its vendor and its abilities are what they should be";
    found_out(Lie::Type, identity);
    found_out(Lie::Size, "it has queues, and their limits make sense");
    found_out(
        Lie::Features,
        "it offers VERSION_1, and the same features each time",
    );
    found_out(
        Lie::Accepted,
        "what is accepted is kept, and forgotten by a reset",
    );
    let pages = "a doorbell that can be given away has a page for itself, and a store rings it";
    found_out(Lie::Page, pages);
}

#[test]
fn a_device_that_lies_about_its_status_is_found_out() {
    found_out(Lie::Status, "the status is what was set, bit by bit");
    let reset = "a reset leads back to the start from every state";
    found_out(Lie::StatusAfterReset, reset);
    found_out(Lie::Ready, reset);
    found_out(
        Lie::NotReady,
        "a queue is ready when it has been started, and no other is",
    );
}

#[test]
fn a_device_with_a_torn_configuration_is_found_out() {
    found_out(
        Lie::Config,
        "the configuration can be read whole and in parts",
    );
    found_out(
        Lie::Generation,
        "the generation stands still while nothing changes",
    );
}

#[test]
fn a_device_that_does_not_keep_its_place_is_found_out() {
    found_out(
        Lie::State,
        "split: a queue starts where it is told to, or at the start alone",
    );
    let elsewhere =
        "a suspended device goes on from its state after a reset, and nothing is lost or doubled";
    found_out(Lie::State, elsewhere);
    found_out(
        Lie::StateInUse,
        "a state that is set while the device is suspended is where its queue stands",
    );
}

#[test]
fn a_device_that_does_not_stop_or_does_not_go_on_is_found_out() {
    let kicked =
        "a suspended device uses nothing, and what is kicked meanwhile is served afterwards";
    found_out(Lie::Suspend, kicked);
    found_out(Lie::Resume, kicked);
}

#[test]
fn a_device_with_a_wrong_log_of_dirty_pages_is_found_out() {
    let equals = "the dirty-page log equals the pages that were written";
    found_out(Lie::LogNothing, equals);
    found_out(Lie::LogElsewhere, equals);
    found_out(Lie::LogMore, equals);
    found_out(Lie::LogOn, "nothing is logged after the log was stopped");
    found_out(Lie::LogOver, "a reset ends the dirty-page log");
    found_out(
        Lie::LogBeyond,
        "a log that ends early is not written beyond",
    );
}

#[test]
fn a_device_that_says_nothing_is_found_out() {
    found_out(
        Lie::Silent,
        "a queue's callback is called when something has been used",
    );
    found_out(Lie::Silent, "a change has a new generation and is told");
    found_out(Lie::Statistics, "what goes through its queues is counted");
    found_out(Lie::Doorbell, "every queue can be notified in every state");
}
