//! Slow syncs.
//!
//! A sync of the simulated disk is a plain call and takes no time. Whoever calls it is a task, though, so its time is
//! taken there: between the write and the sync the log's flusher sleeps (the simulated latency of a sync), and when it
//! wakes, a stalled disk holds it up before it may go on. Jobs on files are held up before they begin.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Poll, ready};

use super::Disk;

impl Disk {
    /// Runs the log's flusher, and holds it up between a write and its sync while the disk stalls.
    pub async fn stalling(self, mut flusher: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let mut pause = None;
        poll_fn(|context| {
            if pause.is_none() {
                pause = self.take_stall().map(|time| Box::pin(tokio::time::sleep(time)));
            }
            if let Some(sleep) = &mut pause {
                ready!(sleep.as_mut().poll(context));
                pause = None;
            }
            match flusher.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(()),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
    }

    /// Runs a job on files, later if the disk stalls.
    pub async fn stalling_job(self, job: Box<dyn FnOnce() + Send>) {
        if let Some(time) = self.stall_of_job() {
            tokio::time::sleep(time).await;
        }
        job();
    }
}
