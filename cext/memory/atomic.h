/* Words that two threads share: one writes, the other reads. The types are said where they are declared. */
#ifndef NFMAILGUARD_ATOMIC_H
#define NFMAILGUARD_ATOMIC_H

#define nm_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define nm_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define nm_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define nm_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
/* Takes a pointer out; NULL: somebody else has. */
#define nm_take(p) __atomic_exchange_n((p), NULL, __ATOMIC_ACQ_REL)

#endif
