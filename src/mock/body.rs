//! The body of an answer: all at once, or piece by piece over time.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::gate::Job;

pub(crate) enum Body {
    Whole(Option<Bytes>),
    Paced(Box<Paced>),
    /// Half of it, and no more: then the connection is closed. The length is announced or not.
    Cut {
        half: Option<Bytes>,
        length: Option<u64>,
        flush: Option<Pin<Box<Sleep>>>,
    },
}

/// Pieces that come `gap` apart. The job ends with the last piece; if the client leaves earlier it is dropped, and that
/// counts as abandoned.
pub(crate) struct Paced {
    pieces: VecDeque<Bytes>,
    /// Bytes left, where the length is announced.
    left: Option<u64>,
    gap: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    end: Option<(Job, u64, u64)>,
}

impl Body {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Body::Whole(Some(bytes))
    }

    /// The first half of `bytes`, and then the end of the connection.
    pub(crate) fn cut(bytes: Bytes, announced: bool) -> Self {
        let length = announced.then_some(bytes.len() as u64);
        Body::Cut { half: Some(bytes.slice(..bytes.len() / 2)), length, flush: None }
    }

    /// A stream of events of unannounced length. Without a gap they go out together: one write instead of many.
    pub(crate) fn stream(pieces: Vec<Bytes>, gap: Duration, job: Job, input: u64, output: u64) -> Self {
        let pieces = if gap.is_zero() { VecDeque::from([Bytes::from(pieces.concat())]) } else { pieces.into() };
        Body::Paced(Box::new(Paced { pieces, left: None, gap, sleep: None, end: Some((job, input, output)) }))
    }

    /// A body of announced length that trickles over `time`. Its job has ended: the answer was ready, the line is slow.
    pub(crate) fn slow(bytes: Bytes, time: Duration) -> Self {
        const PIECES: usize = 16;
        let size = bytes.len().div_ceil(PIECES).max(1);
        let pieces: VecDeque<_> =
            (0..bytes.len()).step_by(size).map(|at| bytes.slice(at..bytes.len().min(at + size))).collect();
        let gap = time / u32::try_from(pieces.len().max(1)).unwrap_or(1);
        Body::Paced(Box::new(Paced { pieces, left: Some(bytes.len() as u64), gap, sleep: None, end: None }))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match self.get_mut() {
            Body::Whole(bytes) => bytes.take(),
            Body::Paced(paced) => ready!(paced.poll_piece(cx)),
            Body::Cut { half, flush, .. } => match half.take() {
                Some(half) => Some(half),
                None => {
                    // hyper drops what it has not written yet when the body fails.
                    let soon = || Box::pin(sleep(Duration::from_millis(20)));
                    ready!(flush.get_or_insert_with(soon).as_mut().poll(cx));
                    return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
                }
            },
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(bytes) => bytes.is_none(),
            Body::Paced(paced) => paced.pieces.is_empty(),
            Body::Cut { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Paced(paced) => paced.left.map_or_else(SizeHint::default, SizeHint::with_exact),
            Body::Cut { length, .. } => length.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl Paced {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if !self.pieces.is_empty() && !self.gap.is_zero() {
            let gap = self.gap;
            ready!(self.sleep.get_or_insert_with(|| Box::pin(sleep(gap))).as_mut().poll(cx));
            self.sleep = None;
        }
        let piece = self.pieces.pop_front();
        if let (Some(left), Some(piece)) = (&mut self.left, &piece) {
            *left -= piece.len() as u64;
        }
        if self.pieces.is_empty()
            && let Some((job, input, output)) = self.end.take()
        {
            job.answered(input, output);
        }
        Poll::Ready(piece)
    }
}
