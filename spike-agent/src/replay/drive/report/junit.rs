//! The report as JUnit's XML, which CI systems show.

use super::Report;

/// The report as JUnit's XML.
pub fn junit(report: &Report) -> String {
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"spike replay drive {}\" tests=\"{}\" \
         failures=\"{}\" errors=\"{}\" skipped=\"0\" time=\"{:.3}\">\n",
        escaped(&report.target),
        report.requests,
        report.different,
        report.failed,
        report.took_ms / 1e3
    );
    for call in &report.calls {
        let time = call.latency_ms.unwrap_or_default() / 1e3;
        xml += &format!(
            "<testcase classname=\"{}\" name=\"{} {}\" time=\"{time:.6}\"",
            escaped(&call.kind),
            call.number + 1,
            escaped(&call.call)
        );
        if let Some(error) = &call.error {
            xml += &format!("><error message=\"{}\"/></testcase>\n", escaped(error));
        } else if let Some(first) = call.differences.first() {
            let all = escaped(&call.differences.join("\n"));
            xml += &format!(
                "><failure message=\"{}\">{all}</failure></testcase>\n",
                escaped(first)
            );
        } else {
            xml += "/>\n";
        }
    }
    xml + "</testsuite>\n</testsuites>\n"
}

/// Text within XML or HTML; what neither may have becomes a `?`.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}
