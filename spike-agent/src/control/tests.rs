//! Checks the verbs against planes that only remember what was asked of them.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;

use super::*;
use crate::{
    control::testing::TestPlanes,
    model::{RawFault, json, view::CaptureState},
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
async fn a_patch_changes_what_it_says() {
    let control = control(TestPlanes::default());
    let armed = fault(r#"{"name":"a","to":{"port":80},"effect":{"type":"latency","delay":"1s"},"seed":7}"#);
    control.fault_add(&armed).await.unwrap();
    let patched = async |patch: &str| {
        let patch = json::parse(patch.as_bytes()).unwrap();
        let view = control.fault_patch("a", &patch).await;
        view.map(|view| serde_json::to_value(view.fault).unwrap())
    };
    let view = patched(r#"{"effect":{"delay":"2s"},"percent":50}"#)
        .await
        .unwrap();
    assert_eq!(view["effect"]["delay"], "2s");
    assert_eq!(
        (&view["effect"]["direction"], &view["percent"]),
        (&"response".into(), &50.0.into())
    );
    let view = patched(r#"{"effect":{"type":"reset"},"to":{"cidr":"10.0.0.0/8"}}"#)
        .await
        .unwrap();
    assert_eq!(view["effect"], serde_json::json!({"type": "reset"}));
    assert_eq!((&view["to"]["port"], &view["seed"]), (&80.into(), &7.into()));
    let view = patched(r#"{"effects":[{"type":"reset","after":"1s"},{"type":"corrupt","share":1}]}"#).await;
    assert_eq!(view.unwrap()["effects"].as_array().map(Vec::len), Some(2));
    let view = patched(r#"{"percent":null}"#).await.unwrap();
    assert_eq!(view["percent"], 100.0);
    for (patch, field) in [
        (r#"{"name":"b"}"#, "name"),
        (r#"{"percnt":1}"#, "percnt"),
        (r#"{"effect":{"type":"latency"}}"#, "effect.delay"),
        (r#"[]"#, ""),
    ] {
        match patched(patch).await {
            Err(ControlError::Field(error)) => assert_eq!(error.field, field),
            other => panic!("{patch}: {other:?}"),
        }
    }
    assert!(matches!(
        control.fault_patch("b", &serde_json::json!({})).await,
        Err(ControlError::NotFound { .. })
    ));
}

#[tokio::test]
async fn what_is_done_with_faults_is_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let control = control(TestPlanes::default()).with_audit(Audit::new(dir.path()));
    let operator = control.by(Actor {
        door: "unix".to_owned(),
        uid: Some(1000),
        pid: Some(5),
    });
    operator.fault_add(&refuse()).await.unwrap();
    let seed = serde_json::json!({"seed": 5});
    operator.fault_patch("r", &seed).await.unwrap();
    operator.fault_remove("r").await.unwrap();
    operator.fault_add(&refuse()).await.unwrap();
    control.by(Actor::by("signal")).panic().await.unwrap();
    let log = control.audit(100).unwrap().entries;
    let events: Vec<_> = log
        .iter()
        .map(|entry| (entry.event, entry.by.uid, entry.id))
        .collect();
    assert_eq!(
        events,
        [
            (AuditEvent::Armed, Some(1000), 1),
            (AuditEvent::Changed, Some(1000), 1),
            (AuditEvent::Removed, Some(1000), 1),
            (AuditEvent::Armed, Some(1000), 2),
            (AuditEvent::Panic, None, 2),
        ]
    );
    assert_eq!((log[2].matched, log[2].affected, log[2].escaped), (5, 3, 2));
    assert!(log[0].spec.is_some() && log[2].spec.is_none());
    assert_eq!(control.audit(1).unwrap().entries, log[4..]);
}

#[tokio::test(start_paused = true)]
async fn faults_end_at_their_deadline() {
    let control = control(TestPlanes::default());
    let watching = tokio::spawn(control.clone().watch_faults());
    let with_ttl = |name: &str, ttl: &str| {
        let body =
            format!(r#"{{"name":"{name}","to":{{"port":80}},"effect":{{"type":"refuse"}},"ttl":"{ttl}"}}"#);
        fault(&body)
    };
    let names = || {
        let faults = control.faults().faults;
        faults.into_iter().map(|fault| fault.name).collect::<Vec<_>>()
    };
    let sleep = |seconds| tokio::time::sleep(std::time::Duration::from_secs(seconds));
    control.fault_add(&with_ttl("long", "10m")).await.unwrap();
    sleep(1).await;
    control.fault_add(&with_ttl("short", "1m")).await.unwrap();
    sleep(59).await;
    assert_eq!(names(), ["long", "short"]);
    sleep(2).await;
    assert_eq!(names(), ["long"]);
    sleep(600).await;
    assert!(names().is_empty());
    watching.abort();
}

#[tokio::test(start_paused = true)]
async fn a_fault_ends_when_calls_go_worse_than_it_may() {
    let control = control(TestPlanes::default());
    let watching = tokio::spawn(control.clone().watch_faults());
    let body = r#"{"name":"a","to":{"port":80},"effect":{"type":"reset"},"abort_when":{"errors":20}}"#;
    control.fault_add(&fault(body)).await.unwrap();
    let careless = r#"{"name":"b","to":{"port":80},"effect":{"type":"reset"},"abort_when":{"errors":99}}"#;
    control.fault_add(&fault(careless)).await.unwrap();
    // Half of the connections that the planes tell of are reset; time stands still for `Instant`, but not for the looks.
    for _ in 0..200 {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        std::thread::sleep(std::time::Duration::from_millis(40));
        if control.fault("a").is_err() {
            break;
        }
    }
    assert!(control.fault("a").is_err() && control.fault("b").is_ok());
    watching.abort();
}

#[tokio::test]
async fn a_dry_run_counts_what_the_planes_saw() {
    let control = control(TestPlanes::default());
    let body = r#"{"name":"d","to":{"port":80},"effect":{"type":"reset"},"percent":50,"dry_run":true}"#;
    control.fault_add(&fault(body)).await.unwrap();
    for _ in 0..20 {
        control.fault("d").unwrap();
    }
    let view = control.fault("d").unwrap();
    // The planes tell of 100 more at each look.
    assert!(view.matched > 1000, "{}", view.matched);
    assert!(view.affected > 0 && view.affected + view.escaped >= view.matched);
    assert_eq!(view.note.as_deref(), Some("dry run: nothing is done"));
}

#[tokio::test]
async fn existing_connections_are_closed_when_that_is_asked_for() {
    let control = control(TestPlanes::default());
    let body = r#"{"name":"e","to":{"port":80},"effect":{"type":"reset"},"existing":"reset"}"#;
    assert_eq!(control.fault_add(&fault(body)).await.unwrap().closed, 4);
    assert_eq!(control.fault_add(&refuse()).await.unwrap().closed, 0);
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

#[tokio::test]
async fn a_recording_goes_where_its_operator_may_write() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.spike").display().to_string();
    let raw = |text: &str| -> crate::model::RawRecording { json::parse(text.as_bytes()).unwrap() };
    let to_file = raw(&format!(r#"{{"to":{{"port":80}},"output":"{file}"}}"#));
    let control = control(TestPlanes::default());
    let of = |uid: Option<u32>| {
        control.by(Actor {
            uid,
            ..Actor::by("unix")
        })
    };
    for uid in [None, Some(1000)] {
        let error = of(uid).recording_start(&to_file).await.unwrap_err();
        assert!(error.to_string().contains("only root"), "{error}");
    }
    for (text, field) in [
        (r#"{"to":{"port":80},"redact":["cookies"]}"#, "redact"),
        (r#"{"from":{"cgroup":"/nowhere"}}"#, "from.cgroup"),
        ("{}", "from"),
    ] {
        let Err(ControlError::Field(error)) = of(Some(0)).recording_start(&raw(text)).await else {
            panic!("{text}")
        };
        assert_eq!(error.field, field);
    }
    let view = of(Some(0)).recording_start(&to_file).await.unwrap();
    assert_eq!(
        (view.id.as_str(), view.running, view.file.as_str()),
        ("r1", true, &*file)
    );
    assert!(control.panic().await.is_ok());
    let view = control.recording("r1").unwrap();
    assert!(!view.running && view.note.is_none());
    assert!(matches!(
        control.recording_stop("r2").await,
        Err(ControlError::NotFound { .. })
    ));
    assert_eq!(control.recordings().len(), 1);
}
