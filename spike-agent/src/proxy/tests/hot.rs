//! Faults that are added, changed and removed while bytes are on their way.

use super::*;

const HOUR: &str = r#"{"type":"latency","delay":"1h","direction":"both"}"#;

/// Changes the first fault.
fn change(world: &World, effect: &str) {
    let first = world.book.list()[0].id;
    world.book.change(first, fault_of(effect)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_is_lost_or_moved_by_changes() {
    let world = World::new(&[LATENCY, r#"{"type":"latency","delay":"1ms"}"#]).await;
    let ids: Vec<u64> = world.book.list().iter().map(|armed| armed.id).collect();
    let changing = async {
        for round in 0_usize.. {
            let effect = [
                r#"{"type":"latency","delay":"3ms","jitter":"3ms","direction":"both"}"#,
                r#"{"type":"bandwidth","rate":"50MiB/s"}"#,
                r#"[{"type":"slicer","size":"700B","variation":"600B","direction":"both"},
                    {"type":"latency","delay":"2ms","direction":"both"},
                    {"type":"bandwidth","rate":"80MiB/s"}]"#,
                r#"{"type":"timeout"}"#,
                r#"{"type":"latency","delay":"1h","direction":"both"}"#,
                r#"{"type":"reset","after":"1h"}"#,
                r#"{"type":"slow_close","delay":"20ms"}"#,
            ][round % 7];
            let start = Instant::now();
            world.book.change(ids[round % 2], fault_of(effect)).unwrap();
            assert!(start.elapsed() < SLACK, "a change waited: {:?}", start.elapsed());
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
    };
    tokio::select! {
        _ = exchange(&world, 8 << 20) => {}
        () = changing => {}
    }
    assert!(
        world
            .book
            .list()
            .iter()
            .all(|armed| armed.counts.affected.load(Ordering::Relaxed) == 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_is_lost_or_moved_by_removal() {
    for effect in [
        LATENCY,
        r#"{"type":"bandwidth","rate":"2MiB/s"}"#,
        r#"{"type":"slicer","size":"100B","delay":"1ms","direction":"both"}"#,
        r#"[{"type":"slicer","size":"500B","direction":"both"},{"type":"latency","delay":"1h","direction":"both"},
            {"type":"bandwidth","rate":"1MiB/s"},{"type":"slow_close","delay":"1h"}]"#,
        r#"{"type":"timeout"}"#,
    ] {
        let world = World::new(&[effect]).await;
        let removing = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            world.book.clear();
            std::future::pending().await
        };
        tokio::select! {
            _ = exchange(&world, 4 << 20) => {}
            () = removing => {}
        }
    }
}

#[tokio::test]
async fn a_held_byte_is_free_at_once_when_its_fault_goes_or_changes() {
    for to in [None, Some(r#"{"type":"latency","delay":"1ms"}"#)] {
        let world = World::new(&[HOUR]).await;
        let (mut client, mut server) = world.connection().await;
        client.write_u8(1).await.unwrap();
        server.write_u8(2).await.unwrap();
        assert!(is_silent(&mut client).await && is_silent(&mut server).await);
        let start = Instant::now();
        match to {
            None => drop(world.book.clear()),
            Some(effect) => change(&world, effect),
        }
        assert_eq!(byte(&mut server).await.unwrap(), 1);
        assert_eq!(byte(&mut client).await.unwrap(), 2);
        assert!(start.elapsed() < SLACK, "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn a_connection_takes_on_what_its_fault_becomes() {
    let world = World::new(&[r#"{"type":"slow_close","delay":"1h"}"#]).await;
    let (mut client, mut server) = world.connection().await;
    client.write_u8(1).await.unwrap();
    assert_eq!(byte(&mut server).await.unwrap(), 1);
    change(&world, HOUR);
    client.write_u8(2).await.unwrap();
    assert!(is_silent(&mut server).await);
    change(&world, r#"{"type":"slicer","size":"1B"}"#);
    assert_eq!(byte(&mut server).await.unwrap(), 2);
    change(&world, r#"{"type":"reset"}"#);
    assert!(is_reset(&mut client).await && is_reset(&mut server).await);
}

#[tokio::test]
async fn open_connections_that_a_new_fault_wants_are_closed() {
    let world = World::new(&[LATENCY]).await;
    let (mut client, _server) = world.connection().await;
    let first = world.book.list()[0].clone();
    // It has this one already.
    assert_eq!(world.proxy.close(&first.fault.selector, first.id), 0);
    let second = world.book.add(fault_of(HOUR)).unwrap();
    assert_eq!(world.proxy.close(&second.fault.selector, second.id), 1);
    assert!(is_reset(&mut client).await);
    let (_client, _server) = world.connection().await;
    assert_eq!(world.proxy.close(&second.fault.selector, second.id), 0);
}
