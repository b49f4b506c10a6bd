import { Component, type ErrorInfo, type ReactNode } from 'react'
import { ErrorState } from './error-state'

type Reporter = (error: unknown, where: string, componentStack: string) => void

let report: Reporter = () => undefined

/** Sets who hears of errors that boundaries caught. */
export function setErrorReporter(reporter: Reporter): void {
  report = reporter
}

/** Keeps an error of one part of the page from taking the rest away. `resetKey` tries again when it changes. */
export class Boundary extends Component<
  { where: string; children: ReactNode; resetKey?: unknown; onRetry?: () => void },
  { error: unknown; failed: boolean }
> {
  override state = { error: undefined as unknown, failed: false }

  static getDerivedStateFromError(error: unknown) {
    return { error, failed: true }
  }

  override componentDidCatch(error: unknown, info: ErrorInfo) {
    report(error, this.props.where, info.componentStack ?? '')
  }

  override componentDidUpdate(before: { resetKey?: unknown }) {
    if (this.state.failed && before.resetKey !== this.props.resetKey)
      this.setState({ error: undefined, failed: false })
  }

  override render() {
    if (!this.state.failed) return this.props.children
    const retry = () => {
      this.props.onRetry?.()
      this.setState({ error: undefined, failed: false })
    }
    return <ErrorState error={this.state.error} onRetry={retry} />
  }
}
