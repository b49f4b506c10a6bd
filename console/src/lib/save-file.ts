/** Gives the browser a file to save. Its type is never one that a browser would show as a page of this origin. */
export function saveFile(name: string, content: BlobPart): void {
  const url = URL.createObjectURL(new Blob([content], { type: 'application/octet-stream' }))
  const link = document.createElement('a')
  link.href = url
  link.download = name
  link.click()
  // The download has its own hold of the content once it began.
  setTimeout(() => URL.revokeObjectURL(url), 10_000)
}
