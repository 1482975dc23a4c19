// The Yjs of this folder's lock, for programs in other folders of tests/: two copies of it would not know each other.
export * from 'yjs'
