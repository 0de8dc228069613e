//! RabbitMQ with pika, as recorded, and what it doesn't do.

use crate::protocol::{
    Call, Conversation, Losses, Side,
    tests::sample::{play, told},
};

#[test]
fn queues_messages_and_errors() {
    let (calls, losses) = play(include_str!("../samples/amqp-shop.txt"), 5672);
    assert_eq!(
        told(&calls),
        [
            ("connect", "/", "OK"),
            ("channel.open", "", "OK"),
            ("exchange.declare", "shop", "OK"),
            ("queue.declare", "orders", "OK"),
            ("queue.bind", "orders", "OK"),
            ("basic.publish", "shop/order.{id}", "-"),
            ("basic.publish", "orders", "-"),
            ("basic.get", "orders", "OK"),
            ("basic.get", "orders", "OK"),
            ("basic.get", "orders", "empty"),
            ("basic.qos", "", "OK"),
            ("basic.consume", "orders", "OK"),
            ("basic.publish", "shop/order.{id}", "-"),
            ("basic.deliver", "shop/order.{id}", "ack"),
            ("basic.cancel", "", "OK"),
            ("basic.publish", "shop/order.{id}", "-"),
            ("queue.purge", "orders", "OK"),
            ("channel.open", "", "OK"),
            ("confirm.select", "", "OK"),
            ("basic.publish", "shop/order.{id}", "ack"),
            ("basic.return", "shop/nowhere", "-"),
            ("basic.publish", "shop/nowhere", "312 NO_ROUTE"),
            ("queue.declare", "gone", "404 NOT_FOUND"),
            ("channel.close", "404 NOT_FOUND", "OK"),
            ("channel.close", "", "OK"),
            ("connection.close", "", "OK")
        ]
    );
    assert!(calls.iter().any(|call| call.trace.is_some()));
    assert_eq!(losses, Losses::default());
}

#[test]
fn a_wrong_password() {
    let (calls, losses) = play(include_str!("../samples/amqp-denied.txt"), 5672);
    assert_eq!(
        told(&calls),
        [
            ("connect", "", "403 ACCESS_REFUSED"),
            ("connection.close", "", "closed")
        ]
    );
    assert!(calls[0].failed);
    assert_eq!(losses, Losses::default());
}

#[test]
fn confirms_of_several_messages() {
    let (calls, losses) = play(include_str!("../samples/amqp-confirms.txt"), 5672);
    assert_eq!(
        told(&calls),
        [
            ("connect", "/", "OK"),
            ("channel.open", "", "OK"),
            ("confirm.select", "", "OK"),
            ("basic.publish", "shop/order.{id}", "ack"),
            ("basic.publish", "shop/order.{id}", "ack"),
            ("basic.publish", "shop/order.{id}", "ack"),
            ("basic.publish", "shop/order.{id}", "ack"),
            ("basic.publish", "shop/order.{id}", "ack"),
            ("basic.publish", "shop/order.{id}", "ack"),
            ("channel.close", "", "OK"),
            ("connection.close", "", "OK")
        ]
    );
    assert_eq!(losses, Losses::default());
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend_from_slice(&channel.to_be_bytes());
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(payload);
    frame.push(0xce);
    frame
}

fn publish(channel: u16, key: &str) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 40, 0, 0, 0, key.len() as u8];
    payload.extend_from_slice(key.as_bytes());
    payload.push(0);
    frame(1, channel, &payload)
}

fn header(channel: u16, size: u8) -> Vec<u8> {
    frame(2, channel, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, size, 0, 0])
}

const CONFIRM: &[u8] = &[0, 85, 0, 10, 0];
const CONFIRMED: &[u8] = &[0, 85, 0, 11];

fn ack(channel: u16, tag: u8, multiple: u8) -> Vec<u8> {
    frame(1, channel, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, tag, multiple])
}

struct Talk {
    conversation: Conversation,
    calls: Vec<Call>,
    at: u64,
}

impl Talk {
    fn new() -> Self {
        let (mut conversation, mut calls) = (Conversation::new(5672), Vec::new());
        for side in [Side::Client, Side::Server] {
            conversation.missing(side, 0, None, &mut calls);
        }
        Self {
            conversation,
            calls,
            at: 0,
        }
    }

    fn say(&mut self, side: Side, bytes: &[u8]) -> &mut Self {
        self.at += 1;
        self.conversation.data(side, self.at, bytes, &mut self.calls);
        self
    }

    fn missing(&mut self, side: Side, count: u64) -> &mut Self {
        self.at += 1;
        self.conversation
            .missing(side, self.at, Some(count), &mut self.calls);
        self
    }
}

#[test]
fn contents_of_channels_are_mixed() {
    let mut talk = Talk::new();
    let client = [publish(1, "a"), publish(2, "b"), header(2, 3), header(1, 2)].concat();
    talk.say(Side::Client, &client);
    talk.say(Side::Client, &frame(3, 2, b"x"))
        .say(Side::Client, &frame(3, 1, b"yy"));
    talk.say(Side::Client, &frame(3, 2, b"zz"));
    assert_eq!(
        told(&talk.calls),
        [("basic.publish", "a", "-"), ("basic.publish", "b", "-")]
    );
    let sizes: Vec<_> = talk.calls.iter().map(|call| call.request_bytes).collect();
    assert_eq!(sizes, [18 + 22 + 10, 18 + 22 + 9 + 10]);
    assert_eq!(talk.calls[1].ended_ns, 4);
}

#[test]
fn after_a_gap_tags_are_not_counted_wrong() {
    let mut talk = Talk::new();
    talk.say(Side::Client, &frame(1, 1, CONFIRM))
        .say(Side::Server, &frame(1, 1, CONFIRMED));
    talk.say(Side::Client, &[publish(1, "a"), header(1, 0)].concat());
    talk.say(Side::Server, &ack(1, 1, 0));
    // The second message.
    talk.missing(Side::Client, 40);
    talk.say(Side::Client, &[publish(1, "c"), header(1, 0)].concat());
    talk.say(Side::Server, &ack(1, 2, 0))
        .say(Side::Server, &ack(1, 3, 0));
    let expected = [
        ("confirm.select", "", "OK"),
        ("basic.publish", "a", "ack"),
        ("basic.publish", "c", "-"),
    ];
    assert_eq!(told(&talk.calls), expected);
    // The same for the answers: these tags go on.
    let mut talk = Talk::new();
    talk.say(Side::Client, &frame(1, 1, CONFIRM))
        .say(Side::Server, &frame(1, 1, CONFIRMED));
    talk.say(Side::Client, &[publish(1, "a"), header(1, 0)].concat());
    talk.missing(Side::Server, 21);
    talk.say(Side::Client, &[publish(1, "b"), header(1, 0)].concat());
    talk.say(Side::Server, &ack(1, 2, 1));
    assert_eq!(
        told(&talk.calls),
        [("confirm.select", "", "OK"), ("basic.publish", "b", "ack")]
    );
    assert_eq!(talk.conversation.losses().calls, 1);
}
