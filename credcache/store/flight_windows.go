package store

const canUnlink = false
