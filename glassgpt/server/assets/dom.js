// Preact with htm: components from template literals, without a build step.
import { h, render, Fragment } from "preact";
import htm from "htm";

export { render, Fragment };
export { useEffect, useLayoutEffect, useMemo, useReducer, useRef, useState, useCallback } from "preact/hooks";
export const html = htm.bind(h);
