/* Words shared by two threads: one thread writes, the other reads. Cython declares the types where it uses these. */
#ifndef NFMAILGUARD_ATOMIC_H
#define NFMAILGUARD_ATOMIC_H

#define nm_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define nm_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define nm_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define nm_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
/* Takes a pointer out of a shared word; NULL if another thread has taken it already. */
#define nm_take(p) __atomic_exchange_n((p), NULL, __ATOMIC_ACQ_REL)

#endif
