//! The header of a model that is not here: its first bytes, in growing pieces until they suffice.

use super::api::{At, Meta, file_url};
use super::client::{Client, Follow, Method, Request};
use super::failure::{Failure, Kind, Stop};
use super::settings::Settings;
use super::transfer::{check_range, status_failure};
use super::watch::Watch;
use crate::gguf::Header;

/// The first piece; each further one makes what is here four times as long. Phi-3-mini's header has 0.8 MB, that of
/// Phi-4-mini, with 200,000 tokens, 10 MB.
const FIRST_BYTES: u64 = 1 << 20;
/// No header comes near.
const MAX_HEADER_BYTES: u64 = 64 << 20;
/// Nor any file: it keeps a hub's claim within what can be computed with.
const MAX_FILE_BYTES: u64 = 1 << 50;

/// What was read of one file so far, which a failed request leaves as it is.
#[derive(Default)]
pub(super) struct Start(Vec<u8>);

impl Start {
    /// Reads on until the header of `file` is whole.
    pub(super) fn read(
        &mut self,
        client: &mut Client,
        settings: &Settings,
        (at, file, meta): (At, &str, &Meta),
        watch: &mut Watch,
    ) -> Result<Header, Stop> {
        let refused = |client: &Client, cause: String| {
            let remedy = "this is no model that candlewick knows, or the hub is set up wrongly";
            Stop::Failed(Failure::new(Kind::Refused, &client.host(), cause, remedy))
        };
        let size = match meta.size {
            Some(size) if size <= MAX_FILE_BYTES => size,
            size => {
                let said = size.map_or("nothing".into(), |s| format!("{s} bytes"));
                return Err(refused(
                    client,
                    format!("asked for its size, it says {said}"),
                ));
            }
        };
        let mut wanted = FIRST_BYTES.max(self.0.len() as u64);
        loop {
            wanted = wanted.min(size);
            self.fetch(client, settings, (at, file, meta), wanted, watch)?;
            if let Some(header) = Header::parse(&self.0, size)? {
                return Ok(header);
            }
            if wanted >= MAX_HEADER_BYTES {
                return Err(refused(
                    client,
                    format!("a header of more than {MAX_HEADER_BYTES} bytes"),
                ));
            }
            wanted *= 4;
        }
    }

    /// Asks for what is missing of the first `wanted` bytes.
    fn fetch(
        &mut self,
        client: &mut Client,
        settings: &Settings,
        (at, file, meta): (At, &str, &Meta),
        wanted: u64,
        watch: &mut Watch,
    ) -> Result<(), Stop> {
        let from = self.0.len() as u64;
        if from >= wanted {
            return Ok(());
        }
        let request = Request {
            method: Method::Get,
            url: &file_url(settings, at, file),
            from,
            to: Some(wanted),
            follow: Follow::All,
            patience: settings.answer_timeout + settings.stall_timeout,
        };
        let mut reply = client.open(&request, watch)?;
        match reply.status {
            206 => check_range(&reply, from, meta.size)?,
            // The whole file, of which no more is read than is wanted.
            200 => self.0.clear(),
            _ => return Err(status_failure(&reply, settings, at, file).into()),
        }
        while (self.0.len() as u64) < wanted {
            let Some(chunk) = reply.next(watch)? else {
                let cause = format!("the answer ended after {} of {wanted} bytes", self.0.len());
                return Err(reply.failure(Kind::Broken, cause, "try again").into());
            };
            let left = (wanted - self.0.len() as u64) as usize;
            self.0.extend_from_slice(&chunk[..chunk.len().min(left)]);
        }
        Ok(())
    }
}
