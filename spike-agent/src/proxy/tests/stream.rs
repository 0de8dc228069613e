//! Each effect on the bytes of a connection, as its two ends see it.

use super::*;

/// Lets the server send and end; what the client gets until the end, and when its first byte and its end came.
async fn answer(world: &World, body: &[u8]) -> (Vec<u8>, Duration, Duration) {
    let (mut client, mut server) = world.connection().await;
    let start = Instant::now();
    server.write_all(body).await.unwrap();
    server.shutdown().await.unwrap();
    let mut got = vec![byte(&mut client).await.unwrap()];
    let first = start.elapsed();
    timeout(PATIENCE, client.read_to_end(&mut got))
        .await
        .unwrap()
        .unwrap();
    (got, first, start.elapsed())
}

#[tokio::test]
async fn slow_close_delays_the_end_and_no_byte() {
    let world = World::new(&[r#"{"type":"slow_close","delay":"300ms"}"#]).await;
    let (got, first, end) = answer(&world, b"hello").await;
    assert_eq!(got, b"hello");
    assert!(first < SLACK, "{first:?}");
    let range = Duration::from_millis(300)..Duration::from_millis(300) + SLACK;
    assert!(range.contains(&end), "{end:?}");
}

#[tokio::test]
async fn slicer_takes_a_pause_after_each_piece() {
    let world = World::new(&[r#"{"type":"slicer","size":"10B","delay":"5ms"}"#]).await;
    let (got, _, end) = answer(&world, &body(400, 0)).await;
    assert_eq!(got, body(400, 0));
    // 40 pieces, 39 pauses before the last.
    assert!(end >= Duration::from_millis(195), "{end:?}");
    let world = World::new(&[r#"{"type":"slicer","size":"10B","delay":"20ms"}"#]).await;
    let (mut client, mut server) = world.connection().await;
    server.write_all(&body(30, 0)).await.unwrap();
    let mut buffer = [0; 100];
    for _ in 0..3 {
        let length = timeout(PATIENCE, client.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(length, 10);
    }
}

#[tokio::test]
async fn limit_data_closes_after_exactly_so_many_bytes() {
    let world = World::new(&[r#"{"type":"limit_data","bytes":"1000B"}"#]).await;
    let (mut client, mut server) = world.connection().await;
    let sending = tokio::spawn(async move {
        let sent = server.write_all(&body(1 << 20, 0)).await;
        // It learns that nobody wants the rest.
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, server.read_to_end(&mut rest)).await.unwrap();
        sent.and(read.map(drop))
    });
    let mut got = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut got))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(got, body(1000, 0));
    drop(client);
    let _ended_either_way = timeout(PATIENCE, sending).await.unwrap().unwrap();
    timeout(PATIENCE, async {
        while world.book.list()[0].active() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn corrupt_flips_the_same_bits_in_every_run() {
    let once = async |effect: &str| {
        let world = World::new(&[effect]).await;
        answer(&world, &body(200_000, 0)).await.0
    };
    let got = once(r#"{"type":"corrupt","share":1}"#).await;
    let clean = body(200_000, 0);
    assert_eq!(got.len(), clean.len());
    let changed = got.iter().zip(&clean).filter(|(got, clean)| got != clean).count();
    // 2,000 ± 5 standard deviations.
    assert!((1777..=2223).contains(&changed), "{changed}");
    // Sliced or not, the same bytes come out.
    let sliced = once(r#"[{"type":"slicer","size":"999B"},{"type":"corrupt","share":1}]"#).await;
    let other_step = sliced
        .iter()
        .zip(&got)
        .filter(|(sliced, got)| sliced != got)
        .count();
    assert!(
        other_step > 2000,
        "an effect's place in the chain has chances of its own"
    );
    assert_eq!(once(r#"{"type":"corrupt","share":1}"#).await, got);
    let request = once(r#"{"type":"corrupt","share":1,"direction":"request"}"#).await;
    assert_eq!(request, clean);
}

#[tokio::test]
async fn a_timeout_may_hold_one_direction_alone() {
    let world = World::new(&[r#"{"type":"timeout","direction":"response"}"#]).await;
    let (mut client, mut server) = world.connection().await;
    client.write_u8(1).await.unwrap();
    assert_eq!(byte(&mut server).await.unwrap(), 1);
    server.write_u8(2).await.unwrap();
    assert!(is_silent(&mut client).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_are_never_exceeded_and_about_reached() {
    for (rate, bytes) in [("64kbit", 12_000), ("1mbit", 125_000), ("100mbit", 12_500_000)] {
        let effect = format!(r#"{{"type":"bandwidth","rate":"{rate}"}}"#);
        let per_second = crate::model::Rate::parse(rate).unwrap().bytes_per_second();
        let world = World::new(&[&effect]).await;
        let (got, _, end) = answer_while_read(&world, bytes).await;
        let share = got as f64 / end.as_secs_f64() / per_second as f64;
        // How near it comes depends on what else this machine does: `cargo xtask bench faults` measures that.
        assert!((0.3..1.02).contains(&share), "{rate}: {share} of it");
    }
}

/// Like [`answer`] of more than fits into the sockets.
async fn answer_while_read(world: &World, bytes: usize) -> (usize, Duration, Duration) {
    let (mut client, server) = world.connection().await;
    let start = Instant::now();
    let sending = tokio::spawn(send(server, body(bytes, 0)));
    let mut got = vec![byte(&mut client).await.unwrap()];
    let first = start.elapsed();
    timeout(PATIENCE, client.read_to_end(&mut got))
        .await
        .unwrap()
        .unwrap();
    sending.await.unwrap();
    (got.len(), first, start.elapsed())
}
