// Runs before the first paint, so that the chosen theme does not flash. src/app/appearance.ts writes what this reads.
try {
  var theme = localStorage.getItem('toolyard.theme')
  var density = localStorage.getItem('toolyard.density')
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme
  if (density === 'compact') document.documentElement.dataset.density = density
} catch (error) {
  // Storage is switched off: the system's theme it is.
}
