//! What is not captured: bodies cost nothing, and after anything else no call is timed wrong.

use super::{EAGER, PATIENT, Side, Talk};

#[test]
fn bodies_that_are_not_captured_cost_nothing() {
    let mut talk = Talk::new(EAGER);
    talk.client(1, "@Q a 1000\nxy").missing(Side::Client, 2, 998);
    talk.server(3, "@R ok 10\n").missing(Side::Server, 4, 10);
    talk.client(5, "@Q b 0\n").server(6, "@R ok 0\n");
    assert_eq!(talk.times(), [("a", 1, Some(3), 4), ("b", 5, Some(6), 6)]);
    assert_eq!(talk.calls[0].request_bytes, 1010);
    assert_eq!(talk.conversation.losses(), super::super::Losses::default());
}

#[test]
fn a_lost_response_is_not_replaced_by_the_next_one() {
    let mut talk = Talk::new(EAGER);
    talk.client(1, "@Q a 0\n").missing(Side::Server, 2, 8);
    talk.client(3, "@Q b 0\n").server(4, "@R ok 0\n");
    assert_eq!(talk.times(), [("b", 3, Some(4), 4)]);
    let losses = talk.conversation.losses();
    assert_eq!((losses.calls, losses.bytes, losses.resyncs), (1, 8, 1));
}

#[test]
fn a_lost_request_does_not_shift_the_others() {
    let mut talk = Talk::new(EAGER);
    talk.client(1, "@Q a 0\n")
        .missing(Side::Client, 2, 7)
        .client(3, "@Q c 0\n");
    // Those of `a`, of the lost one, and of `c`.
    talk.server(4, "@R ok 0\n")
        .server(5, "@R ok 0\n")
        .server(6, "@R ok 0\n");
    assert_eq!(talk.names(), [""; 0]);
    talk.client(7, "@Q d 0\n").server(8, "@R ok 0\n");
    assert_eq!(talk.times(), [("d", 7, Some(8), 8)]);
}

#[test]
fn a_gap_longer_than_the_body_loses_the_place() {
    let mut talk = Talk::new(EAGER);
    talk.client(1, "@Q a 0\n")
        .server(2, "@R ok 4\n")
        .missing(Side::Server, 3, 6);
    // The call ended within the gap; the next message did not start behind it.
    assert_eq!(talk.times(), [("a", 1, Some(2), 3)]);
    talk.client(4, "@Q b 0\n").server(5, "@R ok 0\n");
    assert_eq!(talk.names(), ["a", "b"]);
    assert_eq!(talk.conversation.losses().bytes, 2);
}

#[test]
fn a_conversation_is_joined_in_its_middle() {
    let mut talk = Talk::new(EAGER);
    talk.missing(Side::Client, 1, None).missing(Side::Server, 1, None);
    talk.server(2, "rest of a body").server(3, "@R ok 0\n");
    talk.client(4, "@Q a 0\n").server(5, "@R ok 0\n");
    assert_eq!(talk.times(), [("a", 4, Some(5), 5)]);
}

#[test]
fn where_clients_pipeline_the_order_is_known_only_after_silence() {
    let mut talk = Talk::new(PATIENT);
    talk.missing(Side::Client, 0, None).missing(Side::Server, 0, None);
    // Two older requests are in flight; their responses must not be taken for those of `a` and `b`.
    talk.client(10, "@Q a 0\n").server(20, "@R ok 0\n");
    talk.client(30, "@Q b 0\n").server(40, "@R ok 0\n");
    talk.server(50, "@R ok 0\n@R ok 0\n");
    assert_eq!(talk.names(), [""; 0]);
    assert_eq!(talk.conversation.losses().calls, 2);
    talk.client(150, "@Q c 0\n@Q d 0\n")
        .server(160, "@R ok 0\n@R ok 0\n");
    assert_eq!(
        talk.times(),
        [("c", 150, Some(160), 160), ("d", 150, Some(160), 160)]
    );
}

#[test]
fn a_response_too_many_voids_the_order() {
    let mut talk = Talk::new(PATIENT);
    talk.client(1, "@Q a 0\n")
        .server(2, "@R ok 0\n@R ok 0\n")
        .client(3, "@Q b 0\n")
        .server(4, "@R ok 0\n");
    assert_eq!(talk.names(), ["a"]);
    talk.client(104, "@Q c 0\n").server(105, "@R ok 0\n");
    assert_eq!(talk.names(), ["a", "c"]);
    assert_eq!(talk.conversation.losses().resyncs, 1);
}

#[test]
fn with_ids_only_what_the_gap_can_have_hit_is_given_up() {
    let mut talk = Talk::new(EAGER);
    talk.client(1, "@Q1 a 0\n@Q2 b 0\n").missing(Side::Client, 2, 5);
    talk.server(3, "@R1 ok 0\n").missing(Side::Server, 4, 9);
    talk.client(5, "@Q3 c 0\n")
        .server(6, "@R2 ok 0\n")
        .server(7, "@R3 ok 0\n");
    assert_eq!(talk.names(), ["a", "c"]);
    assert_eq!(talk.conversation.losses().calls, 1);
}

#[test]
fn a_message_that_is_not_of_the_protocol_is_passed_over() {
    let mut talk = Talk::new(EAGER);
    talk.client(1, "@Q a 0\n")
        .server(2, "@R ok 0\n")
        .client(3, "@? what 0\nnoise@Q b 0\n");
    talk.server(4, "@R ok 0\n")
        .client(5, "@Q c 0\n")
        .server(6, "@R ok 0\n");
    assert_eq!(talk.times().last(), Some(&("c", 5, Some(6), 6)));
    assert_eq!(talk.conversation.losses().undecodable, 1);
}

#[test]
fn what_can_not_be_decoded_is_left_alone_at_last() {
    let mut talk = Talk::new(EAGER);
    for at in 0..20 {
        talk.client(at, "@Z no 0\n");
    }
    assert!(talk.conversation.is_opaque());
    assert_eq!(talk.conversation.losses().undecodable, 8);
    let mut other = Talk::new(EAGER);
    other.client(1, "something else").server(2, "@R ok 0\n");
    assert!(other.conversation.is_opaque());
}
