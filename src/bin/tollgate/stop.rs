//! Ctrl-C and SIGTERM: the first ends new work, the second ends everything.

use std::sync::Arc;

use tokio::sync::watch;

/// How urgently to stop. Later ones include earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nobody asked.
    Go,
    /// Start nothing new; what runs may finish.
    Drain,
    /// At once.
    Now,
}

/// Whether to stop, shared by everything that works. Signals raise it, and so does what cannot go on.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    level: Arc<watch::Sender<Level>>,
    interrupted: Arc<watch::Sender<bool>>,
}

impl Stop {
    /// A stop that nobody has asked for.
    pub(crate) fn new() -> Self {
        Self { level: Arc::new(watch::Sender::new(Level::Go)), interrupted: Arc::new(watch::Sender::new(false)) }
    }

    /// Raises the level with each signal from now on.
    pub(crate) fn listen(&self) -> std::io::Result<()> {
        let mut signals = Signals::new()?;
        let stop = self.clone();
        tokio::spawn(async move {
            loop {
                signals.next().await;
                stop.interrupted.send_replace(true);
                stop.raise(if stop.level() == Level::Go { Level::Drain } else { Level::Now });
            }
        });
        Ok(())
    }

    /// Raises the level to at least `level`.
    pub(crate) fn raise(&self, level: Level) {
        self.level.send_if_modified(|current| {
            let raised = level > *current;
            *current = level.max(*current);
            raised
        });
    }

    /// How it stands.
    pub(crate) fn level(&self) -> Level {
        *self.level.borrow()
    }

    /// Whether a signal came, as opposed to something that cannot go on.
    pub(crate) fn interrupted(&self) -> bool {
        *self.interrupted.borrow()
    }

    /// Does something that may wait for others for as long as they please, on a thread of its own; `None` when it is to stop
    /// meanwhile.
    pub(crate) async fn unless_reached<T: Send + 'static>(
        &self,
        level: Level,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let work = tokio::task::spawn_blocking(work);
        tokio::select! {
            biased;
            () = self.reached(level) => None,
            done = work => done.ok(),
        }
    }

    /// Waits for the level to be at least `level`.
    pub(crate) async fn reached(&self, level: Level) {
        // The sender is in `self`, so there is no error.
        let _ = self.level.subscribe().wait_for(|current| *current >= level).await;
    }
}

#[cfg(unix)]
struct Signals(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self(signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    }

    async fn next(&mut self) {
        tokio::select! { _ = self.0.recv() => {}, _ = self.1.recv() => {} }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
