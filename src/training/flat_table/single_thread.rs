//! Limits libtorch to one thread for small networks.

/// Limits libtorch to one thread within an operation until dropped. Small layers gain nothing from more, and waiting
/// for each other takes longer than the work: on two busy cores, 3 s of training became 3 minutes.
pub(crate) struct SingleThread {
    threads_before: i32,
}

impl SingleThread {
    pub(crate) fn start() -> Self {
        let threads_before = tch::get_num_threads();
        tch::set_num_threads(1);
        Self { threads_before }
    }
}

impl Drop for SingleThread {
    fn drop(&mut self) {
        tch::set_num_threads(self.threads_before);
    }
}
