//! What each kind of method begins and ends.

use super::{
    ASKED_LIMIT, Amqp, Asked, Id, Messages, Request, Side, answered,
    content::Content,
    method::{self, Arguments},
};

impl Amqp {
    pub(super) fn ask(
        &mut self,
        by: Side,
        channel: u16,
        code: (u16, u16),
        form: &method::Form,
        mut arguments: Arguments<'_>,
        messages: &mut Messages<'_>,
    ) -> Option<()> {
        let read = arguments.read(form)?;
        let call = self.call();
        let request = Request::new(form.name, read.target);
        if code == (85, 10) {
            self.tags.confirm(channel);
        }
        if code == (20, 10) {
            self.tags.opened(channel);
        }
        let acknowledged = code == (60, 20) && read.bits & 2 == 0;
        if read.no_wait || self.asked.len() >= ASKED_LIMIT {
            if acknowledged {
                self.tags.consumes(channel, &read.consumer);
            }
            messages.one_way(Id(call), request);
            return Some(());
        }
        messages.whole_request(Id(call), request);
        self.asked.push(Asked {
            by,
            channel,
            method: code,
            call,
            acknowledged,
            consumer: read.consumer,
        });
        Some(())
    }

    pub(super) fn answer(
        &mut self,
        from: Side,
        channel: u16,
        code: (u16, u16),
        arguments: &mut Arguments<'_>,
        messages: &mut Messages<'_>,
    ) {
        let answers = |asked: &Asked| {
            asked.by != from && asked.channel == channel && method::answers(code, asked.method)
        };
        let Some(place) = self.asked.iter().position(answers) else {
            return;
        };
        let asked = self.asked.remove(place);
        if asked.acknowledged {
            // The server names those without a name.
            let named = arguments.short().unwrap_or_default();
            let consumer = if asked.consumer.is_empty() {
                named
            } else {
                &asked.consumer
            };
            self.tags.consumes(channel, consumer);
        }
        if code == (60, 71) {
            messages.response(Id(asked.call));
            messages.status(Id(asked.call), "OK", false);
            self.contents[from as usize].begin(Content::of_response(channel, asked.call));
        } else {
            let status = if code == (60, 72) { "empty" } else { "OK" };
            answered(messages, asked.call, status.to_owned(), false);
        }
    }

    /// A channel or the connection is closed: what is open on it has failed.
    pub(super) fn close(
        &mut self,
        from: Side,
        channel: u16,
        code: (u16, u16),
        arguments: &mut Arguments<'_>,
        messages: &mut Messages<'_>,
    ) -> Option<()> {
        let reason = arguments.reason()?;
        let call = self.call();
        let all = code.0 == 10;
        let target = if reason.starts_with('0') || reason.starts_with("200") {
            ""
        } else {
            &*reason
        };
        messages.whole_request(
            Id(call),
            Request::new(if all { "connection.close" } else { "channel.close" }, target),
        );
        let mut failed = self.tags.closed(from, channel, all);
        let concerned = |asked: &Asked| asked.by != from && (all || asked.channel == channel);
        failed.extend(
            self.asked
                .iter()
                .filter(|asked| concerned(asked))
                .map(|asked| asked.call),
        );
        self.asked.retain(|asked| !concerned(asked));
        for failed in failed {
            answered(messages, failed, reason.clone(), true);
        }
        if self.asked.len() < ASKED_LIMIT {
            self.asked.push(Asked {
                by: from,
                channel,
                method: code,
                call,
                acknowledged: false,
                consumer: Vec::new(),
            });
        }
        Some(())
    }

    pub(super) fn publish(
        &mut self,
        from: Side,
        channel: u16,
        arguments: &mut Arguments<'_>,
        messages: &mut Messages<'_>,
    ) -> Option<()> {
        arguments.skip(2)?;
        let request = Request::new("basic.publish", arguments.address()?);
        let call = self.call();
        messages.request(Id(call), request);
        if !self.tags.published(channel, call) {
            messages.no_response(Id(call));
        }
        self.contents[from as usize].begin(Content::of_request(channel, call));
        Some(())
    }

    pub(super) fn deliver(
        &mut self,
        from: Side,
        channel: u16,
        arguments: &mut Arguments<'_>,
        messages: &mut Messages<'_>,
    ) -> Option<()> {
        let consumer = arguments.short()?;
        let tag = arguments.tag()?;
        arguments.skip(1)?;
        let request = Request::new("basic.deliver", arguments.address()?);
        let call = self.call();
        messages.request(Id(call), request);
        if !self.tags.delivered(channel, consumer, tag, call) {
            messages.no_response(Id(call));
        }
        self.contents[from as usize].begin(Content::of_request(channel, call));
        Some(())
    }

    pub(super) fn one_way_with_content(
        &mut self,
        from: Side,
        channel: u16,
        request: Request,
        messages: &mut Messages<'_>,
    ) {
        let call = self.call();
        messages.request(Id(call), request);
        messages.no_response(Id(call));
        self.contents[from as usize].begin(Content::of_request(channel, call));
    }
}
