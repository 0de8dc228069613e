//! Checks the verbs against planes that only remember what was asked of them.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;

use super::*;
use crate::{
    control::testing::TestPlanes,
    model::{json, view::CaptureState},
};

fn control(planes: TestPlanes) -> Control {
    Control::new(Arc::default(), Arc::new(planes))
}

fn fault(body: &str) -> RawFault {
    json::parse(body.as_bytes()).unwrap()
}

fn refuse() -> RawFault {
    fault(r#"{"name":"r","to":{"port":80},"effect":{"type":"refuse"}}"#)
}

#[tokio::test]
async fn a_fault_is_settled_before_it_is_answered() {
    let settled = Arc::new(AtomicU64::new(0));
    let control = control(TestPlanes {
        settled: settled.clone(),
        ..TestPlanes::default()
    });
    let view = control.fault_add(&refuse()).await.unwrap();
    assert_eq!(settled.load(Ordering::Relaxed), 1);
    assert_eq!(
        (view.name.as_str(), view.matched, view.affected, view.escaped),
        ("r", 5, 3, 2)
    );
    assert_eq!(view.note, None);
    control.fault_remove("r").await.unwrap();
    assert_eq!(settled.load(Ordering::Relaxed), 2);
    assert!(matches!(
        control.fault_remove("r").await,
        Err(ControlError::NotFound { .. })
    ));
    assert!(control.fault_clear().await.unwrap().is_empty());
    assert_eq!(settled.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_fault_that_cannot_be_put_in_force_is_not_armed() {
    let control = control(TestPlanes {
        fails_to_settle: true,
        ..TestPlanes::default()
    });
    assert!(matches!(
        control.fault_add(&refuse()).await,
        Err(ControlError::Unavailable(_))
    ));
    assert!(control.faults().faults.is_empty());
}

#[tokio::test]
async fn conflicts_and_wrong_values_are_told_apart() {
    let control = control(TestPlanes::default());
    control.fault_add(&refuse()).await.unwrap();
    assert!(matches!(
        control.fault_add(&refuse()).await,
        Err(ControlError::Conflict(_))
    ));
    let elsewhere = fault(r#"{"from":{"cgroup":"/nowhere"},"effect":{"type":"refuse"}}"#);
    match control.fault_add(&elsewhere).await {
        Err(ControlError::Field(error)) => assert_eq!(error.field, "from.cgroup"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_capture_has_one_reader_and_ends_with_it() {
    let control = control(TestPlanes::default());
    let id = control.capture_start(&RawCapture::default()).await.unwrap().id;
    let mut stream = control.capture_stream(&id, true).unwrap();
    assert!(matches!(
        control.capture_stream(&id, true),
        Err(ControlError::Conflict(_))
    ));
    assert_eq!(control.status().captures, 1);
    assert_eq!(stream.next().await.unwrap().unwrap(), "head");
    assert_eq!(control.capture_stop(&id).unwrap().state, CaptureState::Ended);
    assert_eq!(stream.next().await.unwrap().unwrap(), "tail");
    assert!(stream.next().await.is_none());
    assert_eq!(control.capture(&id).unwrap().bytes, 8);

    let other = control.capture_start(&RawCapture::default()).await.unwrap().id;
    drop(control.capture_stream(&other, true).unwrap());
    assert_eq!(control.capture(&other).unwrap().state, CaptureState::Ended);
    assert_eq!(control.status().captures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_capture_that_nobody_reads_is_stopped() {
    let control = control(TestPlanes::default());
    let id = control.capture_start(&RawCapture::default()).await.unwrap().id;
    tokio::time::sleep(std::time::Duration::from_secs(61)).await;
    assert_eq!(control.capture(&id).unwrap().state, CaptureState::Ended);
}

#[tokio::test]
async fn captures_are_bounded() {
    let control = control(TestPlanes::default());
    for _ in 0..32 {
        control.capture_start(&RawCapture::default()).await.unwrap();
    }
    let one_more = control.capture_start(&RawCapture::default()).await;
    assert!(matches!(one_more, Err(ControlError::Unavailable(_))));
    assert_eq!(control.panic().await.unwrap().captures.len(), 32);
    for _ in 0..40 {
        let id = control.capture_start(&RawCapture::default()).await.unwrap().id;
        control.capture_stop(&id).unwrap();
    }
    assert_eq!(control.captures().len(), 32);
}

#[tokio::test]
async fn a_command_takes_its_faults_and_captures_with_it() {
    let control = control(TestPlanes::default());
    let exec = control.exec_begin(1, std::process::id()).unwrap();
    let from = format!(r#""from":{{"cgroup":"{}"}}"#, exec.cgroup);
    control
        .fault_add(&fault(&format!(r#"{{{from},"effect":{{"type":"reset"}}}}"#)))
        .await
        .unwrap();
    control.fault_add(&refuse()).await.unwrap();
    let capture = json::parse::<RawCapture>(format!("{{{from}}}").as_bytes()).unwrap();
    let capture = control.capture_start(&capture).await.unwrap();
    control.exec_end(&exec.id).await.unwrap();
    assert!(matches!(
        control.exec_end(&exec.id).await,
        Err(ControlError::NotFound { .. })
    ));
    assert_eq!(control.fault_clear().await.unwrap(), ["r"]);
    assert_eq!(control.capture(&capture.id).unwrap().state, CaptureState::Ended);
}

#[tokio::test]
async fn a_command_ends_with_its_client() {
    let control = control(TestPlanes::default());
    let mut client = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let exec = control.exec_begin(1, client.id()).unwrap();
    let body = format!(
        r#"{{"from":{{"cgroup":"{}"}},"effect":{{"type":"reset"}}}}"#,
        exec.cgroup
    );
    control.fault_add(&fault(&body)).await.unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
    for _ in 0..500 {
        if control.faults().faults.is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the fault outlived the client");
}
