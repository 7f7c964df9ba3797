//! How much was looked at, counted in this crate's own tests: what may cost no more than what has changed
//! is held to that. Elsewhere nothing is counted.

#[cfg(test)]
thread_local! {
    static SPENT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// So many items were looked at.
#[inline]
pub(crate) fn spend(items: usize) {
    #[cfg(test)]
    SPENT.set(SPENT.get() + items);
    let _ = items;
}

/// How many this thread has looked at while `work` was done.
#[cfg(test)]
pub(crate) fn of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = SPENT.get();
    let done = work();
    (done, SPENT.get() - before)
}
