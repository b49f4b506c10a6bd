/** Where in the settings a server's place is changed: the part of their address after `#`. */
export const PLACE = 'place'
