//! Which response answers which request, and when.

use super::{EAGER, End, PATIENT, Talk};

#[test]
fn a_call_has_the_times_of_its_packets_and_its_sizes() {
    let mut talk = Talk::new(EAGER);
    talk.client(10, "@Q ge").client(11, "t 3\n").client(12, "abc");
    talk.server(20, "@R ok 4\nab").server(30, "cd");
    let [call] = &talk.calls[..] else {
        panic!("{:?}", talk.calls)
    };
    assert_eq!(
        (call.started_ns, call.sent_ns, call.first_byte_ns, call.ended_ns),
        (10, Some(12), Some(20), 30)
    );
    assert_eq!((call.request_bytes, call.response_bytes), (12, 12));
    assert_eq!(
        (call.status.as_deref(), call.failed, call.complete),
        (Some("ok"), false, true)
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut talk = Talk::new(PATIENT);
    talk.client(1, "@Q a 0\n@Q b 0\n").client(2, "@Q c 0\n");
    talk.server(5, "@I wait 0\n")
        .server(6, "@R ok 0\n@R bad 0\n")
        .server(7, "@R ok 0\n");
    assert_eq!(
        talk.times(),
        [("a", 1, Some(6), 6), ("b", 1, Some(6), 6), ("c", 2, Some(7), 7)]
    );
    assert!(talk.calls[1].failed);
}

#[test]
fn ids_are_answered_in_any_order_from_either_side() {
    let mut talk = Talk::new(EAGER);
    talk.client(1, "@Q1 a 0\n")
        .client(2, "@Q2 b 0\n")
        .server(3, "@Q1 c 0\n");
    talk.server(5, "@R2 ok 0\n")
        .server(6, "@R1 ok 0\n")
        .client(7, "@R1 ok 0\n");
    assert_eq!(
        talk.times(),
        [("b", 2, Some(5), 5), ("a", 1, Some(6), 6), ("c", 3, Some(7), 7)]
    );
}

#[test]
fn a_message_without_an_answer_is_a_call_of_its_own() {
    let mut talk = Talk::new(EAGER);
    talk.client(1, "@Q a 0\n@O tell 2\n")
        .client(2, "xx")
        .server(3, "@R ok 0\n");
    assert_eq!(talk.times(), [("tell", 1, None, 2), ("a", 1, Some(3), 3)]);
    assert!(talk.calls.iter().all(|call| call.complete));
}

#[test]
fn a_call_that_is_given_up_is_incomplete() {
    let mut talk = Talk::new(EAGER);
    talk.client(1, "@Q1 a 0\n")
        .client(4, "@C1 - 0\n")
        .server(5, "@R1 ok 0\n");
    assert_eq!(talk.times(), [("a", 1, None, 4)]);
    assert!(!talk.calls[0].complete);
}

#[test]
fn what_is_open_at_the_end_is_told_as_it_stands() {
    let how = |how| {
        let mut talk = Talk::new(EAGER);
        talk.client(1, "@Q a 0\n").end(9, how);
        let call = talk.calls.first().cloned();
        (
            call.map(|call| (call.failed, call.complete, call.ended_ns)),
            talk.conversation.losses().calls,
        )
    };
    assert_eq!(how(End::Reset), (Some((true, false, 9)), 0));
    assert_eq!(how(End::Closed), (Some((false, false, 9)), 0));
    assert_eq!(how(End::Unsampled), (None, 1));
}

#[test]
fn a_body_up_to_the_end_ends_with_the_connection() {
    let mut talk = Talk::new(EAGER);
    talk.client(1, "@Q a 0\n")
        .server(2, "@T ok 0\nlong")
        .missing(super::Side::Server, 3, 100);
    talk.end(9, End::Closed);
    assert_eq!(talk.times(), [("a", 1, Some(2), 9)]);
    assert!(talk.calls[0].complete);
    assert_eq!(talk.calls[0].response_bytes, 8 + 4 + 100);
}

#[test]
fn a_conversation_that_leaves_its_protocol_is_opaque() {
    let mut talk = Talk::new(EAGER);
    talk.client(1, "@Q up 0\n")
        .server(2, "@U ok 0\n\x16\x03")
        .client(3, "\x16\x03");
    assert_eq!(talk.names(), ["up"]);
    assert!(talk.conversation.is_opaque());
    assert_eq!(talk.conversation.losses().undecodable, 0);
}

#[test]
fn what_began_before_its_request_is_no_response_to_it() {
    for (asked, answered) in [("@Q a 0\n", "@R"), ("@Q4 a 0\n", "@R4")] {
        let mut talk = Talk::new(EAGER);
        talk.client(1, "@Q x 0\n").server(2, "@R ok 0\n");
        talk.server(3, answered).client(4, asked).server(5, " ok 0\n");
        assert_eq!(talk.names(), ["x"]);
        assert_eq!(talk.conversation.losses().calls, 1);
        talk.client(6, "@Q b 0\n").server(7, "@R ok 0\n");
        assert_eq!(talk.times()[1..], [("b", 6, Some(7), 7)]);
    }
}
