//! Captures as people write them, right and wrong.

use super::*;

fn capture(body: &str) -> Result<CaptureSpec, FieldError> {
    CaptureSpec::try_from(&serde_json::from_str::<RawCapture>(body).unwrap())
}

#[test]
fn an_empty_capture_takes_everything() {
    let spec = capture("{}").unwrap();
    assert!(spec.selector.is_empty() && spec.interfaces.is_empty() && spec.secrets);
    assert_eq!(
        (spec.snaplen, spec.count, spec.duration),
        (MAX_SNAPLEN, None, None)
    );
    assert_eq!((spec.rotation, spec.wait, spec.sample), (None, None, 1));
}

#[test]
fn the_normalised_form_means_the_same() {
    for body in [
        r#"{"from":{"pid":1},"to":{"port":"1-9"},"interfaces":["lo"],"snaplen":64,"count":1,"duration":"1s"}"#,
        r#"{"interfaces":["any@*","lo@blue","eth0@77"],"duplicates":true,"legs":"both","sample":10,"filter":"tcp"}"#,
        r#"{"keep":true,"size":"1GB","file_size":"1.5MB","files":3,"no_secrets":true}"#,
        r#"{"before":"30s","on":["reset","errors>0.5%","p99>1s"],"after":"0s"}"#,
    ] {
        let spec = capture(body).unwrap();
        assert_eq!(
            CaptureSpec::try_from(&RawCapture::from(&spec)),
            Ok(spec),
            "{body}"
        );
    }
}

#[test]
fn values_out_of_range_are_named() {
    for (body, field) in [
        (r#"{"snaplen":63}"#, "snaplen"),
        (r#"{"snaplen":262145}"#, "snaplen"),
        (r#"{"count":0}"#, "count"),
        (r#"{"sample":0}"#, "sample"),
        (r#"{"duration":"0s"}"#, "duration"),
        (r#"{"duration":"5"}"#, "duration"),
        (r#"{"size":"0B"}"#, "size"),
        (r#"{"file_size":"1KB"}"#, "file_size"),
        (r#"{"file_size":"1MB","files":0}"#, "files"),
        (r#"{"files":3}"#, "files"),
        (r#"{"on":["reset"]}"#, "on"),
        (r#"{"after":"1s"}"#, "after"),
        (r#"{"before":"2h"}"#, "before"),
        (r#"{"before":"1s","on":["reset","rest"]}"#, "on[1]"),
        (r#"{"before":"1s","on":["errors>100%"]}"#, "on[0]"),
        (r#"{"before":"1s","on":["errors>1"]}"#, "on[0]"),
        (r#"{"before":"1s","on":["p99>1"]}"#, "on[0]"),
        (r#"{"before":"1s","on":["p98>1s"]}"#, "on[0]"),
        (r#"{"interfaces":["lo","lo"]}"#, "interfaces[1]"),
        (r#"{"interfaces":[""]}"#, "interfaces[0]"),
        (r#"{"interfaces":["a/b"]}"#, "interfaces[0]"),
        (r#"{"interfaces":["lo@../x"]}"#, "interfaces[0]"),
        (r#"{"to":{"pid":0}}"#, "to.pid"),
    ] {
        assert_eq!(capture(body).unwrap_err().field, field, "{body}");
    }
}
